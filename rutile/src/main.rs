//! `rutile`: see `rutile --help`.

use std::process::ExitCode;

use clap::Parser;
use rutile::cli::{Cli, Command};
use rutile::{ctl, error, exit, processes};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stack of the worker threads: deep expressions recurse.
const STACK_SIZE_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("rutile-worker")
        .thread_stack_size(STACK_SIZE_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rutile: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            None => processes::playground(&cli.playground).await,
            Some(Command::Playground(args)) => processes::playground(&args).await,
            Some(Command::Pd(args)) => processes::pd(&args).await,
            Some(Command::Kv(args)) => processes::kv(&args).await,
            Some(Command::Sql(args)) => processes::sql(&args).await,
            Some(Command::Ctl(args)) => ctl::run(&args).await,
        }
    });
    // Whatever still runs (a client's query) does not keep the process.
    runtime.shutdown_background();
    if let Err(failure) = &result {
        eprintln!("rutile: {}", error::one_line(failure));
    }
    exit::now(u8::from(result.is_err()))
}
