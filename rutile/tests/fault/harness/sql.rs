//! A connection to one of several SQL servers that is made anew when it breaks, and what a failure means.

use std::net::SocketAddr;
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder, Params};

/// The server says that it does not know whether the statement took effect.
const UNDETERMINED: u16 = 8501;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the server tries by itself.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a statement failed.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It certainly has no effect.
    Refused(u16, String),
    /// Nobody knows.
    Unknown(String),
    /// It was never sent.
    NotConnected(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(code, text) => write!(f, "refused with {code}: {text}"),
            Failure::Unknown(text) => write!(f, "unknown: {text}"),
            Failure::NotConnected(text) => write!(f, "not connected: {text}"),
        }
    }
}

/// A new connection as root, in `database` when it is not empty.
pub async fn connect(address: SocketAddr, database: &str) -> Result<Conn, String> {
    let options = OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .user(Some("root"))
        .prefer_socket(Some(false))
        .db_name((!database.is_empty()).then_some(database));
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options)).await;
    connected.map_err(|_| "no answer".to_owned())?.map_err(|e| e.to_string())
}

/// A client that goes on at another server when its own is lost.
pub struct Session {
    servers: Vec<SocketAddr>,
    at: usize,
    /// Sent first on every new connection.
    greeting: Option<&'static str>,
    conn: Option<Conn>,
}

impl Session {
    /// Of the database `test`, at first at server `at`.
    pub fn new(servers: &[SocketAddr], at: usize) -> Self {
        Session { servers: servers.to_vec(), at, greeting: None, conn: None }
    }

    /// With a statement that every new connection begins with.
    pub fn with_greeting(self, statement: &'static str) -> Self {
        Session { greeting: Some(statement), ..self }
    }

    async fn connected(&mut self) -> Result<&mut Conn, Failure> {
        if self.conn.is_none() {
            let server = self.servers[self.at % self.servers.len()];
            let opened = async {
                let mut conn = connect(server, "test").await?;
                if let Some(greeting) = self.greeting {
                    conn.query_drop(greeting).await.map_err(|e| e.to_string())?;
                }
                Ok::<Conn, String>(conn)
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, opened)
                .await
                .unwrap_or_else(|_| Err("no answer".into()))
            {
                Ok(conn) => self.conn = Some(conn),
                Err(error) => {
                    self.at += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return Err(Failure::NotConnected(format!("{server}: {error}")));
                }
            }
        }
        Ok(self.conn.as_mut().expect("just connected"))
    }

    /// Rows of a statement, and how many it changed. A failure of the connection closes it.
    pub async fn run<T>(
        &mut self,
        statement: &str,
        params: impl Into<Params>,
    ) -> Result<(Vec<T>, u64), Failure>
    where
        T: FromRow + Send + 'static,
    {
        let params = params.into();
        let conn = self.connected().await?;
        let asked = async {
            let rows: Vec<T> = conn.exec(statement, params).await?;
            Ok((rows, conn.affected_rows()))
        };
        let failure = match tokio::time::timeout(STATEMENT_TIMEOUT, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(mysql_async::Error::Server(e))) if e.code == UNDETERMINED => {
                return Err(Failure::Unknown(e.message));
            }
            Ok(Err(mysql_async::Error::Server(e))) => return Err(Failure::Refused(e.code, e.message)),
            Ok(Err(error)) => Failure::Unknown(error.to_string()),
            Err(_) => Failure::Unknown(format!("no answer within {STATEMENT_TIMEOUT:?}")),
        };
        self.lose();
        Err(failure)
    }

    /// A statement without rows; answers how many it changed.
    pub async fn change(&mut self, statement: &str, params: impl Into<Params>) -> Result<u64, Failure> {
        self.run::<mysql_async::Row>(statement, params).await.map(|(_, affected)| affected)
    }

    /// Gives the connection up; the next one is to another server.
    pub fn lose(&mut self) {
        self.at += 1;
        self.conn = None;
    }

    /// Which server it is connected to, or tries next.
    pub fn server(&self) -> usize {
        self.at % self.servers.len()
    }

    /// Leaves its server for another one.
    pub fn go_to(&mut self, server: usize) {
        self.at = server;
        self.conn = None;
    }
}
