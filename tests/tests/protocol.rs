//! The MySQL protocol below what client libraries show: raw packets against a running server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use rutile_tests::process::Playground;

/// CLIENT_PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, TRANSACTIONS, MULTI_RESULTS.
const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000 | 0x0000_2000 | 0x0002_0000;

struct Raw {
    stream: TcpStream,
}

impl Raw {
    fn connect(playground: &Playground) -> Result<Raw> {
        let stream = TcpStream::connect(("127.0.0.1", playground.ports.sql))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Raw { stream })
    }

    fn read(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).context("packet header")?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).context("packet payload")?;
        Ok(payload)
    }

    fn write(&mut self, sequence: u8, payload: &[u8]) -> Result<()> {
        let length = (payload.len() as u32).to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], sequence];
        packet.extend_from_slice(payload);
        Ok(self.stream.write_all(&packet)?)
    }

    fn log_in(playground: &Playground) -> Result<Raw> {
        let mut raw = Raw::connect(playground)?;
        let greeting = raw.read()?;
        ensure!(greeting[0] == 10, "protocol version {}", greeting[0]);
        let mut answer = CAPABILITIES.to_le_bytes().to_vec();
        answer.extend_from_slice(&[0, 0, 0, 1, 255]);
        answer.extend_from_slice(&[0; 23]);
        answer.extend_from_slice(b"root\0\0caching_sha2_password\0");
        raw.write(1, &answer)?;
        let ok = raw.read()?;
        ensure!(ok[0] == 0, "log-in answered {ok:?}");
        Ok(raw)
    }

    fn command(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        self.write(0, payload)?;
        self.read()
    }

    /// The error number of an ERR answer.
    fn error_of(&mut self, payload: &[u8]) -> Result<u16> {
        let answer = self.command(payload)?;
        ensure!(answer[0] == 0xff, "no error but {answer:?}");
        Ok(u16::from_le_bytes([answer[1], answer[2]]))
    }

    /// The rows of a one-column text result.
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<u8>>> {
        let mut query = vec![3];
        query.extend_from_slice(sql.as_bytes());
        let count = self.command(&query)?;
        ensure!(count == [1], "{sql} answered {count:?}");
        self.read_result()
    }

    /// What follows the column count of a one-column result.
    fn read_result(&mut self) -> Result<Vec<Vec<u8>>> {
        self.read()?;
        ensure!(self.read()?[0] == 0xfe, "no EOF after the columns");
        let mut rows = Vec::new();
        loop {
            let row = self.read()?;
            if row[0] == 0xfe && row.len() < 9 {
                return Ok(rows);
            }
            rows.push(row);
        }
    }
}

#[test]
fn commands_are_answered_or_refused_by_name() -> Result<()> {
    let playground = Playground::start()?;
    let mut raw = Raw::log_in(&playground)?;
    ensure!(raw.command(&[14])?[0] == 0, "COM_PING");
    ensure!(raw.command(&[31])?[0] == 0, "COM_RESET_CONNECTION");
    ensure!(raw.command(&[9])?.starts_with(b"Uptime"), "COM_STATISTICS");
    ensure!(raw.command(&[27, 1, 0])?[0] == 0xfe, "COM_SET_OPTION: several statements off");
    // COM_BINLOG_DUMP, COM_REGISTER_REPLICA, COM_SLEEP and numbers that are no command.
    for command in [18, 21, 0, 30, 200] {
        ensure!(raw.error_of(&[command, 0, 0, 0, 0])? == 1047, "command {command}");
    }
    ensure!(raw.error_of(b"\x02no_such_db")? == 1049, "COM_INIT_DB");
    ensure!(raw.error_of(b"\x17\x63\0\0\0\0\x01\0\0\0")? == 1243, "unknown prepared statement");
    ensure!(raw.error_of(b"\x03SELEC 1")? == 1064, "syntax");
    ensure!(raw.error_of(b"\x03")? == 1065, "empty query");
    ensure!(raw.error_of(b"\x03SELECT 1; SELECT 2")? == 1064, "several statements, switched off");
    ensure!(raw.rows("SELECT 7")? == [vec![1, b'7']], "the connection still works");
    Ok(())
}

#[test]
fn types_bound_once_serve_later_executions() -> Result<()> {
    let playground = Playground::start()?;
    let mut raw = Raw::log_in(&playground)?;
    let prepared = raw.command(b"\x16SELECT ? + 1")?;
    ensure!(prepared[0] == 0, "prepare answered {prepared:?}");
    let id = &prepared[1..5];
    (0..4).try_for_each(|_| raw.read().map(|_| ()))?;
    for bound in [true, false, false] {
        let mut execute = vec![0x17];
        execute.extend_from_slice(id);
        execute.extend_from_slice(&[0, 1, 0, 0, 0, 0, u8::from(bound)]);
        if bound {
            execute.extend_from_slice(&[8, 0]);
        }
        execute.extend_from_slice(&41i64.to_le_bytes());
        let count = raw.command(&execute)?;
        ensure!(count == [1], "execute answered {count:?}");
        let rows = raw.read_result()?;
        ensure!(rows == [[&[0, 0][..], &42i64.to_le_bytes()].concat()], "{rows:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_misbehaves_ends_alone() -> Result<()> {
    let playground = Playground::start()?;
    let mut witness = Raw::log_in(&playground)?;
    // More than anybody may send before log-in.
    let mut raw = Raw::connect(&playground)?;
    raw.read()?;
    raw.stream.write_all(&[0xff, 0xff, 0xff, 1])?;
    let answer = raw.read()?;
    ensure!(answer[0] == 0xff && u16::from_le_bytes([answer[1], answer[2]]) == 1153, "{answer:?}");
    // A wrong sequence number, junk instead of a handshake, a packet cut short.
    let mut raw = Raw::log_in(&playground)?;
    raw.write(9, &[14])?;
    ensure!(u16::from_le_bytes(raw.read()?[1..3].try_into()?) == 1156, "sequence");
    let mut raw = Raw::connect(&playground)?;
    raw.read()?;
    raw.write(1, &[0xff; 64])?;
    ensure!(raw.read()?[0] == 0xff, "junk");
    let mut raw = Raw::log_in(&playground)?;
    raw.stream.write_all(&[100, 0, 0, 0, 3, b'S'])?;
    drop(raw);
    // Two commands in one write, and a client that leaves in the middle of a query.
    let mut raw = Raw::log_in(&playground)?;
    raw.stream.write_all(b"\x01\0\0\0\x0e\x01\0\0\0\x0e")?;
    ensure!(raw.read()?[0] == 0 && raw.read()?[0] == 0, "pipelined pings");
    raw.write(0, b"\x03SELECT SLEEP(100)")?;
    drop(raw);
    ensure!(witness.rows("SELECT 1")? == [vec![1, b'1']], "witness");
    Ok(())
}

#[tokio::test]
async fn passwords_databases_and_killing() -> Result<()> {
    let playground = Playground::start()?;
    let mut root = playground.connect("").await?;
    root.query_drop("CREATE USER app IDENTIFIED BY 'secret'").await?;
    root.query_drop("CREATE USER old IDENTIFIED WITH mysql_native_password BY 'secret'").await?;
    let options = |user: &str, password: &str, database: Option<&str>| {
        mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(playground.ports.sql)
            .user(Some(user))
            .pass(Some(password))
            .db_name(database)
    };
    let code = |error: mysql_async::Error| match error {
        mysql_async::Error::Server(error) => error.code,
        other => panic!("no server error: {other}"),
    };
    for user in ["app", "old"] {
        for _ in 0..2 {
            let mut conn = mysql_async::Conn::new(options(user, "secret", None)).await?;
            let current: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
            ensure!(current == Some(format!("{user}@%")), "{current:?}");
        }
        let refused = mysql_async::Conn::new(options(user, "wrong", None)).await;
        ensure!(refused.map_err(code).err() == Some(1045), "wrong password of {user}");
    }
    let refused = mysql_async::Conn::new(options("root", "", Some("nowhere"))).await;
    ensure!(refused.map_err(code).err() == Some(1049), "unknown database");
    let mut victim = playground.connect("").await?;
    let id = victim.id();
    let sleeping = tokio::spawn(async move { victim.query_drop("SELECT SLEEP(100)").await });
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
    while root.query_first::<u64, _>(running).await? != Some(1) {
        tokio::task::yield_now().await;
    }
    root.query_drop(format!("KILL QUERY {id}")).await?;
    // SLEEP is special: interrupted, it answers 1.
    let _ = sleeping.await?;
    Ok(())
}
