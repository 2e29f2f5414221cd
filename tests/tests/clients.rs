//! The programs people use, unmodified, each against a database of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use rutile_tests::process::Playground;
use rutile_tests::tools::{clients_dir, have, python, run};

fn python_client(client: &str) -> Result<()> {
    ensure!(python().exists(), "{} is missing: run `make setup`", python().display());
    let mut db = Playground::start()?;
    let script = clients_dir().join("python/work.py");
    run(Command::new(python()).arg(script).arg(client).arg(db.ports.sql.to_string()))?;
    db.stop()
}

#[test]
fn pymysql() -> Result<()> {
    python_client("pymysql")
}

#[test]
fn mysql_connector_python() -> Result<()> {
    python_client("connector")
}

#[test]
fn mysql_connector_python_prepared() -> Result<()> {
    python_client("connector_prepared")
}

#[test]
fn sqlalchemy() -> Result<()> {
    python_client("sqlalchemy")
}

#[test]
fn tikv_client_python() -> Result<()> {
    ensure!(python().exists(), "{} is missing: run `make setup`", python().display());
    let mut db = Playground::start()?;
    let script = clients_dir().join("python/tikv_work.py");
    run(Command::new(python()).arg(script).arg(format!("127.0.0.1:{}", db.ports.pd)))?;
    db.stop()
}

/// Compiles the Java program and answers its class path.
fn build_java(target: &Path) -> Result<String> {
    let project = clients_dir().join("jdbc");
    let jars = target.join("classpath");
    run(Command::new("mvn")
        .args(["-q", "-B", "dependency:build-classpath"])
        .arg(format!("-Dmdep.outputFile={}", jars.display()))
        .current_dir(&project))?;
    let jars = std::fs::read_to_string(jars)?;
    let source = project.join("src/main/java/rutile/Work.java");
    run(Command::new("javac").arg("-cp").arg(&jars).arg("-d").arg(target).arg(source))?;
    Ok(format!("{}:{jars}", target.display()))
}

#[test]
fn connector_j() -> Result<()> {
    if !have("mvn") || !have("javac") {
        return Ok(());
    }
    let target = tempfile::tempdir()?;
    let class_path = build_java(target.path())?;
    let mut db = Playground::start()?;
    run(Command::new("java").args(["-cp", &class_path, "rutile.Work"]).arg(db.ports.sql.to_string()))?;
    db.stop()
}

/// Runs `tests/clients/sql/tour.sql` through a command-line client and compares what it prints.
fn command_line(program: &str, db: &Playground) -> Result<()> {
    let tour = std::fs::File::open(clients_dir().join("sql/tour.sql"))?;
    let wanted = std::fs::read_to_string(clients_dir().join("sql/tour.out"))?;
    let printed = run(Command::new(program)
        .args(["-h", "127.0.0.1", "-u", "root", "--table", "--default-character-set=utf8mb4"])
        .arg(format!("-P{}", db.ports.sql))
        .stdin(tour))?;
    ensure!(printed == wanted, "{program} printed\n{printed}\nand not\n{wanted}");
    Ok(())
}

#[test]
fn mysql_command_line() -> Result<()> {
    if !have("mysql") {
        return Ok(());
    }
    let mut db = Playground::start()?;
    command_line("mysql", &db)?;
    // Another client can be given, such as MySQL's own.
    if let Ok(program) = std::env::var("MYSQL_CLIENT") {
        command_line(&program, &db)?;
    }
    let wrong = Command::new("mysql")
        .args(["-h", "127.0.0.1", "-u", "nobody", "-pwrong"])
        .arg(format!("-P{}", db.ports.sql))
        .args(["-e", "SELECT 1"])
        .output()?;
    let message = String::from_utf8_lossy(&wrong.stderr).to_string();
    ensure!(message.contains("1045") && message.contains("Access denied for user 'nobody'@"), "{message}");
    db.stop()
}

/// LOAD DATA LOCAL INFILE through the command line.
#[test]
fn load_data_local() -> Result<()> {
    if !have("mysql") {
        return Ok(());
    }
    let mut db = Playground::start()?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("rows.csv");
    let rows: String = (0..5000).map(|i| format!("{i},\"name, {i}\",\\N\n")).collect();
    std::fs::write(&file, rows)?;
    let script = format!(
        "CREATE DATABASE l; USE l; CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(30), x INT); \
         LOAD DATA LOCAL INFILE '{}' INTO TABLE t FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'; \
         SELECT COUNT(*), SUM(id), MAX(name), COUNT(x) FROM t;",
        file.display()
    );
    let printed = run(Command::new("mysql")
        .args(["-h", "127.0.0.1", "-u", "root", "--local-infile=1", "-N", "-e", &script])
        .arg(format!("-P{}", db.ports.sql)))?;
    ensure!(printed.trim() == "5000\t12497500\tname, 999\t0", "{printed}");
    db.stop()
}

#[test]
fn sysbench_read_write() -> Result<()> {
    if !have("sysbench") {
        return Ok(());
    }
    let mut db = Playground::start()?;
    run(Command::new("mysql")
        .args(["-h", "127.0.0.1", "-u", "root", "-e", "CREATE DATABASE sbtest"])
        .arg(format!("-P{}", db.ports.sql)))?;
    let sysbench = |threads: &str, command: &str| {
        run(Command::new("sysbench")
            .args(["oltp_read_write", "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=root"])
            .arg(format!("--mysql-port={}", db.ports.sql))
            .args(["--mysql-db=sbtest", "--tables=2", "--table-size=2000", "--time=5", "--mysql-ssl=off"])
            .args([&format!("--threads={threads}"), command]))
    };
    sysbench("2", "prepare")?;
    let report = sysbench("16", "run")?;
    ensure!(report.contains("transactions:") && !report.contains("FATAL"), "{report}");
    sysbench("1", "cleanup")?;
    println!("{report}");
    db.stop()
}
