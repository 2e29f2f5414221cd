//! Programs outside the workspace that tests drive: they are found or the test says loudly that it is skipped.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Folder `tests/clients` of this workspace.
#[must_use]
pub fn clients_dir() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("run by cargo")).join("clients")
}

/// Python of the environment that `make setup` made.
#[must_use]
pub fn python() -> PathBuf {
    let venv = std::env::var_os("RUTILE_VENV").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/rutile/venv"),
        PathBuf::from,
    );
    venv.join("bin/python")
}

/// Whether a program is on the PATH; says so loudly when it is not.
#[must_use]
pub fn have(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("SKIPPED: `{program}` is not installed (run `make setup`)");
    }
    found
}

/// Runs a command to its end; an exit status other than 0 is an error with everything it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output: Output = command.output().with_context(|| format!("run {command:?}"))?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{text}", output.status);
    }
    Ok(text)
}
