//! `docker-compose.yml` and `Dockerfile`, as far as they can be checked without a container engine.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rutile_tests::{process, tools};

fn read(name: &str) -> Result<String> {
    let path = tools::clients_dir().join("../..").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Every role's command line is one that this binary takes.
#[test]
fn the_commands_of_the_compose_file_are_understood() -> Result<()> {
    let compose = read("docker-compose.yml")?;
    let commands: Vec<&str> =
        compose.lines().filter_map(|line| line.trim().strip_prefix("command: ")).collect();
    for role in ["pd", "kv", "sql"] {
        let of_role = commands.iter().filter(|command| command.split(' ').next() == Some(role)).count();
        ensure!(of_role >= 2, "{of_role} of {role}");
    }
    for command in commands {
        let printed = tools::run(
            Command::new(process::binary()?).args(command.split_whitespace()).arg("--print-config"),
        )?;
        ensure!(printed.contains("addr"), "{command}: {printed}");
    }
    for name in ["pd1", "pd2", "pd3", "kv1", "kv2", "kv3"] {
        ensure!(compose.contains(&format!("volumes: [\"{name}:")), "{name} keeps no data");
    }
    Ok(())
}

/// What the image starts by default is understood, and its ports are the documented ones.
#[test]
fn the_image_starts_the_playground() -> Result<()> {
    let image = read("Dockerfile")?;
    let list = image.lines().find_map(|line| line.strip_prefix("CMD ")).context("no CMD")?;
    let arguments: Vec<String> = serde_json::from_str(list)?;
    let printed = tools::run(Command::new(process::binary()?).args(&arguments).arg("--print-config"))?;
    ensure!(printed.contains("0.0.0.0"), "{printed}");
    let ports = image.lines().find_map(|line| line.strip_prefix("EXPOSE ")).context("no EXPOSE")?;
    for port in ["4000", "10080", "2379", "2380", "20160", "20180"] {
        ensure!(ports.split(' ').any(|p| p == port), "{port} is not exposed");
    }
    Ok(())
}
