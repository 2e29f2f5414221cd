//! README's tour of three machines, as it is written: each machine is a network namespace with a shell of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rutile_tests::{process, tools};

const MACHINES: usize = 4;
const READY_TIMEOUT: Duration = Duration::from_secs(90);
const PD: &str = "10.42.0.1:2379,10.42.0.2:2379,10.42.0.3:2379";
/// Whether every region that `rutile ctl regions` lists has three peers, and none that is still a learner.
const HAS_THREE_PEERS: &str =
    r#"awk 'NR > 1 && (/learner/ || split($6, peers, ",") != 3) { lacks = 1 } END { exit lacks }'"#;

fn ip(arguments: &[&str]) -> Result<String> {
    tools::run(Command::new("ip").args(arguments))
}

/// Namespaces on one switch; gone when dropped, with everything that runs in them.
struct Network {
    prefix: String,
}

impl Network {
    /// `None` where namespaces are not permitted.
    fn new() -> Option<Network> {
        let network = Network { prefix: format!("tour{}", std::process::id()) };
        if let Err(error) = network.build() {
            eprintln!("SKIPPED: the tour needs network namespaces, which this machine refuses: {error:#}");
            return None;
        }
        Some(network)
    }

    fn build(&self) -> Result<()> {
        let switch = self.name(0);
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for n in 1..=MACHINES {
            let (machine, port) = (self.name(n), format!("p{n}"));
            ip(&["netns", "add", &machine])?;
            ip(&[
                "-n", &machine, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns",
                &switch,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &machine, "addr", "add", &format!("10.42.0.{n}/24"), "dev", "eth0"])?;
            ip(&["-n", &machine, "link", "set", "eth0", "up"])?;
            ip(&["-n", &machine, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn name(&self, machine: usize) -> String {
        format!("{}-{machine}", self.prefix)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in 0..=MACHINES {
            let name = self.name(machine);
            for pid in ip(&["netns", "pids", &name]).unwrap_or_default().split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).output();
            }
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// A shell on a machine, which keeps its variables and jobs from one block to the next.
struct Shell {
    machine: usize,
    dir: PathBuf,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    fn open(network: &Network, machine: usize, root: &Path) -> Result<Shell> {
        let dir = root.join(machine.to_string());
        std::fs::create_dir(&dir)?;
        let binary = process::binary()?;
        let path = format!(
            "{}:{}",
            binary.parent().context("the binary has a folder")?.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut child = Command::new("ip")
            .args(["netns", "exec", &network.name(machine), "bash", "--norc"])
            .current_dir(&dir)
            .env("PATH", path)
            .env("HOME", &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut shell = Shell {
            machine,
            dir,
            child,
            stdin: stdin.context("stdin")?,
            stdout: BufReader::new(stdout.context("stdout")?),
        };
        shell.run("trap 'echo FAILED: $BASH_COMMAND' ERR")?;
        Ok(shell)
    }

    /// What a block prints on its standard output; a command that fails is an error.
    fn run(&mut self, block: &str) -> Result<String> {
        const END: &str = "-- end of the block --";
        writeln!(self.stdin, "{block}\necho '{END}'")?;
        let mut text = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.stdout.read_line(&mut line)? > 0, "the shell of machine {} ended", self.machine);
            if line.trim_end() == END {
                break;
            }
            text.push_str(&line);
        }
        ensure!(!text.contains("FAILED: "), "machine {}:\n{block}\n{text}{}", self.machine, self.logs());
        Ok(text)
    }

    /// Repeats a command until it succeeds.
    fn wait_for(&mut self, command: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.run(&format!("if {command} >/dev/null 2>&1; then echo ready; fi"))?.contains("ready") {
            if begun.elapsed() > READY_TIMEOUT {
                bail!(
                    "machine {}: {command} still fails after {READY_TIMEOUT:?}{}",
                    self.machine,
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        ["pd.log", "kv.log", "sql.log"].map(|name| format!("\n== {name}\n{}", read(name))).concat()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The blocks of README's section in order, each with the machines it is for.
fn blocks(readme: &str) -> Result<Vec<(Vec<usize>, String)>> {
    let (_, rest) =
        readme.split_once("\n## Three machines\n").context("README has no section \"Three machines\"")?;
    let section = rest.split("\n## ").next().unwrap_or_default();
    let mut blocks = Vec::new();
    for block in section.split("```sh\n").skip(1) {
        let (text, _) = block.split_once("```").context("a block without an end")?;
        let (title, _) = text.split_once('\n').context("an empty block")?;
        ensure!(title.starts_with("# on machine"), "a block does not say where it runs: {title}");
        let machines = title.chars().filter_map(|c| c.to_digit(10)).map(|n| n as usize).collect();
        blocks.push((machines, text.to_owned()));
    }
    Ok(blocks)
}

#[test]
fn the_tour_of_three_machines_works_as_written() -> Result<()> {
    if !tools::have("ip") || !tools::have("mysql") {
        return Ok(());
    }
    let Some(network) = Network::new() else { return Ok(()) };
    let readme = std::fs::read_to_string(tools::clients_dir().join("../../README.md"))?;
    let root = tempfile::tempdir()?;
    let mut shells =
        (1..=MACHINES).map(|n| Shell::open(&network, n, root.path())).collect::<Result<Vec<_>>>()?;
    let mut printed = Vec::new();
    let mut lost = Vec::new();
    for (machines, block) in blocks(&readme)? {
        let mut outputs = String::new();
        for &machine in &machines {
            let text = block.replace("\nN=1 ", &format!("\nN={machine} "));
            outputs += &shells[machine - 1].run(&text)?;
        }
        eprintln!("{block}{outputs}");
        if block.contains("kill -9") {
            lost = machines.clone();
        }
        // What a reader sees to before going on.
        for machine in machines.into_iter().filter(|machine| !lost.contains(machine)) {
            let shell = &mut shells[machine - 1];
            if block.contains("rutile pd ") {
                shell.wait_for(&format!("rutile ctl --pd {PD} tso"))?;
            }
            if block.contains("rutile kv ") {
                shell.wait_for(&format!(
                    "rutile ctl --pd {PD} stores | grep -q '10.42.0.{machine}:20160.*Up'"
                ))?;
            }
            if block.contains("rutile sql ") {
                shell.wait_for(&format!("mysql -h 10.42.0.{machine} -P 4000 -u root -e 'SELECT 1'"))?;
            }
        }
        if lost.is_empty() && block.contains(" regions") {
            shells[0].wait_for(&format!("rutile ctl --pd {PD} regions | {HAS_THREE_PEERS}"))?;
        }
        printed.push(outputs);
    }
    let all = printed.concat();
    for word in ["tea", "chocolate", "coffee"] {
        assert!(all.contains(word), "{word} is not in what the tour printed");
    }
    let last = printed.last().context("the section has no blocks")?;
    assert!(last.lines().count() > 1, "the regions are not shown at the end");
    let rows = shells[0].run("mysql -h 10.42.0.1 -P 4000 -u root -N -e 'SELECT COUNT(*) FROM shop.item'")?;
    assert_eq!(rows.trim(), "3");
    Ok(())
}
