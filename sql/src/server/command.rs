//! The commands of the protocol, each answered or refused by name.

use std::sync::Arc;

use bytes::Bytes;
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use rutile_expr::types::{Collation, FieldType};

use super::codec::Reader;
use super::connection::{ClientStatement, Conn, ConnectionError, Next};
use super::handshake::ChangeUser;
use super::login::{LoginError, change_user};
use super::params::{decode_execute, decode_long_data};
use super::response::{write_column, write_end, write_eof, write_error, write_field_list_column, write_ok};
use super::resultset::RowFormat;
use crate::parser::ast::Statement;
use crate::parser::parse_first;
use crate::plan::OutputColumn;
use crate::session::text_plan::TextHit;
use crate::session::{OkInfo, Request};
use crate::{Error, Result};

const COM_QUIT: u8 = 1;
const COM_INIT_DB: u8 = 2;
const COM_QUERY: u8 = 3;
const COM_FIELD_LIST: u8 = 4;
const COM_STATISTICS: u8 = 9;
const COM_PROCESS_INFO: u8 = 10;
const COM_PROCESS_KILL: u8 = 12;
const COM_DEBUG: u8 = 13;
const COM_PING: u8 = 14;
const COM_CHANGE_USER: u8 = 17;
const COM_STMT_PREPARE: u8 = 22;
const COM_STMT_EXECUTE: u8 = 23;
const COM_STMT_SEND_LONG_DATA: u8 = 24;
const COM_STMT_CLOSE: u8 = 25;
const COM_STMT_RESET: u8 = 26;
const COM_SET_OPTION: u8 = 27;
const COM_STMT_FETCH: u8 = 28;
const COM_RESET_CONNECTION: u8 = 31;

type Outcome<T = Next> = std::result::Result<T, ConnectionError>;

impl Conn {
    /// Answers one command. What the client did wrong is told to it; an error here ends the connection.
    pub(super) async fn command(&mut self, payload: Bytes) -> Outcome {
        let Some(&command) = payload.first() else {
            self.error(&Error::MalformedPacket);
            self.io.flush().await?;
            return Ok(Next::Go);
        };
        let body = payload.slice(1..);
        match command {
            COM_QUIT => return Ok(Next::Stop),
            COM_QUERY => self.query(body).await?,
            COM_STMT_EXECUTE => self.execute(body).await?,
            COM_STMT_SEND_LONG_DATA => {
                self.long_data(&body);
                return Ok(Next::Go);
            }
            COM_STMT_CLOSE => {
                if let Ok(id) = Reader::new(&body).u32() {
                    self.statements.remove(&id);
                    self.session.close_prepared(id);
                }
                return Ok(Next::Go);
            }
            COM_STMT_PREPARE => Box::pin(self.prepare(body)).await,
            COM_STMT_FETCH => Box::pin(self.fetch(&body)).await?,
            COM_CHANGE_USER => return Box::pin(self.change_user(&body)).await,
            COM_PROCESS_INFO => self.query(Bytes::from_static(b"SHOW PROCESSLIST")).await?,
            COM_STATISTICS => self.statistics(),
            _ => {
                let answer = Box::pin(self.simple(command, &body)).await;
                self.answer_simple(command, answer);
            }
        }
        self.io.flush().await?;
        Ok(Next::Go)
    }

    /// Commands answered with OK (some: EOF) or an error.
    async fn simple(&mut self, command: u8, body: &Bytes) -> Result<()> {
        match command {
            COM_PING => Ok(()),
            COM_INIT_DB => self.session.use_database(&String::from_utf8_lossy(body)).await,
            COM_RESET_CONNECTION => {
                self.statements.clear();
                self.session.reset().await
            }
            COM_STMT_RESET => self.reset_statement(body),
            COM_SET_OPTION => {
                let on = match Reader::new(body).u16()? {
                    0 => true,
                    1 => false,
                    _ => return Err(Error::UnknownCommand),
                };
                self.capabilities.set(CapabilityFlags::CLIENT_MULTI_STATEMENTS, on);
                Ok(())
            }
            COM_PROCESS_KILL => {
                let id = u64::from(Reader::new(body).u32()?);
                self.session.kill_connection(id, false)
            }
            COM_FIELD_LIST => self.field_list(body),
            COM_DEBUG => Ok(()),
            _ => Err(Error::UnknownCommand),
        }
    }

    fn answer_simple(&mut self, command: u8, answer: Result<()>) {
        match answer {
            Err(error) => self.error(&error),
            Ok(()) if matches!(command, COM_SET_OPTION | COM_DEBUG | COM_FIELD_LIST) => {
                let ok = self.session.command_ok();
                match command {
                    COM_FIELD_LIST => write_end(&mut self.io, self.capabilities, &ok),
                    _ => write_eof(&mut self.io, ok.status, 0),
                }
            }
            Ok(()) => {
                let ok = self.session.command_ok();
                write_ok(&mut self.io, self.capabilities, 0, &ok);
            }
        }
    }

    /// Appends an ERR packet.
    pub(super) fn error(&mut self, error: &Error) {
        write_error(&mut self.io, self.capabilities, error);
    }

    /// COM_QUERY: one statement, or several where the client may send them.
    async fn query(&mut self, text: Bytes) -> Outcome<()> {
        let mut rest = text;
        if let Some(hit) = self.session.text_plan(&rest) {
            return self.planned_query(hit, rest).await;
        }
        loop {
            let options = self.session.settings().parse;
            let parsed = parse_first(&rest, options).and_then(|parsed| {
                let more = parsed.end < rest.len();
                let several = self.capabilities.contains(CapabilityFlags::CLIENT_MULTI_STATEMENTS);
                let stray =
                    if parsed.params > 0 { memchr::memchr(b'?', &rest).unwrap_or(0) } else { parsed.end };
                match parsed.params > 0 || more && !several {
                    true => Err(syntax_error(&rest, stray)),
                    false => Ok(parsed),
                }
            });
            let parsed = match parsed {
                Ok(parsed) => parsed,
                Err(error) => {
                    self.session.refuse(&error);
                    self.error(&error);
                    return Ok(());
                }
            };
            let more = parsed.end < rest.len();
            let request = Request { text: rest.slice(..parsed.end), ..Request::default() };
            rest = rest.slice(parsed.end..);
            let went_well =
                self.run_statement(Arc::new(parsed.statement), request, RowFormat::Text, more).await?;
            if !more || !went_well {
                return Ok(());
            }
        }
    }

    /// A text that need not be parsed.
    async fn planned_query(&mut self, hit: TextHit, text: Bytes) -> Outcome<()> {
        if self.try_text_point_read(&hit) {
            return Ok(());
        }
        let Some(statement) = hit.statement() else { return Ok(()) };
        let request = hit.into_request(text);
        self.run_statement(statement, request, RowFormat::Text, false).await.map(|_| ())
    }

    async fn prepare(&mut self, text: Bytes) {
        let id = match self.session.prepare(text).await {
            Ok(id) => id,
            Err(error) => return self.error(&error),
        };
        let Ok(prepared) = self.session.prepared.get(id, "mysqld_stmt_prepare") else { return };
        let (params, columns) = (prepared.params, Arc::clone(&prepared.columns));
        let long_data = (0..params).map(|_| None).collect();
        self.statements.insert(id, ClientStatement { long_data, ..ClientStatement::default() });
        let out = self.io.begin_packet();
        out.push(0);
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(columns.len() as u16).to_le_bytes());
        out.extend_from_slice(&(params as u16).to_le_bytes());
        out.extend_from_slice(&[0, 0, 0]);
        self.io.end_packet();
        let settings = self.session.settings();
        let eof = !self.capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF);
        let status = self.session.status();
        if params > 0 {
            let placeholder = OutputColumn::computed(0, "?", FieldType::varchar(0, Collation::Binary));
            (0..params).for_each(|_| write_column(&mut self.io, &placeholder, settings.results));
            if eof {
                write_eof(&mut self.io, status, 0);
            }
        }
        if !columns.is_empty() {
            columns.columns.iter().for_each(|column| write_column(&mut self.io, column, settings.results));
            if eof {
                write_eof(&mut self.io, status, 0);
            }
        }
    }

    async fn execute(&mut self, body: Bytes) -> Outcome<()> {
        match self.decode_execution(&body) {
            Ok((statement, request, cursor)) => match cursor {
                true => Box::pin(self.open_cursor(statement, request)).await,
                false => self.run_statement(statement, request, RowFormat::Binary, false).await.map(|_| ()),
            },
            Err(error) => {
                self.session.refuse(&error);
                self.error(&error);
                Ok(())
            }
        }
    }

    fn decode_execution(&mut self, body: &Bytes) -> Result<(Arc<Statement>, Request, bool)> {
        let id = Reader::new(body).u32()?;
        let prepared = self.session.prepared.get(id, "mysqld_stmt_execute")?;
        let state = self.statements.entry(id).or_default();
        state.cursor = None;
        if let Some(error) = state.long_data_error.take() {
            state.long_data.iter_mut().for_each(|value| *value = None);
            return Err(error);
        }
        let execute = decode_execute(&body[4..], prepared.params, &mut state.types, &mut state.long_data)?;
        let request = Request {
            text: prepared.text.clone(),
            params: execute.params,
            prepared: Some(id),
            ..Request::default()
        };
        let statement = Arc::clone(&prepared.statement);
        let cursor = execute.cursor && matches!(&*statement, Statement::Query(_));
        Ok((statement, request, cursor))
    }

    /// COM_STMT_SEND_LONG_DATA has no answer; what is wrong with it is told at the next execution.
    fn long_data(&mut self, body: &Bytes) {
        let Ok((id, parameter, piece)) = decode_long_data(body) else { return };
        let limit = self.session.settings().max_allowed_packet as usize;
        let Some(state) = self.statements.get_mut(&id) else { return };
        match state.long_data.get_mut(parameter) {
            None => {
                state.long_data_error =
                    Some(Error::WrongArguments { to: "mysql_stmt_send_long_data".to_owned() })
            }
            Some(value) => {
                let value = value.get_or_insert_default();
                if value.len() + piece.len() > limit {
                    value.clear();
                    let message = "Parameter of prepared statement which is set through mysql_send_long_data() is longer \
                                   than 'max_allowed_packet' bytes";
                    state.long_data_error =
                        Some(Error::Mysql { code: 1105, state: "HY000", message: message.to_owned() });
                    return;
                }
                value.extend_from_slice(piece);
            }
        }
    }

    fn reset_statement(&mut self, body: &Bytes) -> Result<()> {
        let id = Reader::new(body).u32()?;
        self.session.prepared.get(id, "mysqld_stmt_reset")?;
        if let Some(state) = self.statements.get_mut(&id) {
            state.long_data.iter_mut().for_each(|value| *value = None);
            state.long_data_error = None;
            state.cursor = None;
        }
        Ok(())
    }

    /// COM_CHANGE_USER: the old session ends, whatever becomes of the new log-in.
    async fn change_user(&mut self, body: &Bytes) -> Outcome {
        let changed = match ChangeUser::decode(body, self.capabilities) {
            Ok(change) => change_user(&self.shared, &mut self.io, change.response, &self.host).await,
            Err(error) => Err(error.into()),
        };
        let result = match changed {
            Ok(logged_in) => {
                self.statements.clear();
                match self.session.change_user(logged_in.login).await {
                    Ok(()) => self.session.enter(logged_in.database).await,
                    refused => refused,
                }
            }
            Err(LoginError::Refused(error)) => Err(error),
            Err(LoginError::Gone) => return Ok(Next::Stop),
        };
        let next = match &result {
            Ok(()) => {
                let ok = self.session.command_ok();
                write_ok(&mut self.io, self.capabilities, 0, &ok);
                Next::Go
            }
            Err(error) => {
                self.error(error);
                Next::Stop
            }
        };
        self.io.flush().await?;
        Ok(next)
    }

    fn statistics(&mut self) {
        let instance = self.session.instance();
        let text = format!(
            "Uptime: {}  Threads: {}  Questions: {}  Slow queries: 0  Opens: 0  Flush tables: 0  Open tables: 0",
            instance.uptime_seconds(),
            instance.connection_count(),
            instance.counters.questions.load(std::sync::atomic::Ordering::Relaxed),
        );
        self.io.write(text.as_bytes());
    }

    /// COM_FIELD_LIST: the columns of a table, for clients that complete names.
    fn field_list(&mut self, body: &Bytes) -> Result<()> {
        let name = String::from_utf8_lossy(Reader::new(body).nul_or_rest()).into_owned();
        let database = self.session.database().ok_or(Error::NoDatabase)?.to_owned();
        let schema = self.session.instance().catalog.snapshot();
        let table = schema.table(&database, &name).cloned();
        let table = table.ok_or_else(|| Error::NoSuchTable { db: database.clone(), table: name })?;
        let charset = self.session.settings().results;
        for (_, column) in table.visible_columns() {
            let described = OutputColumn {
                table: table.name.clone(),
                db: database.clone(),
                org_table: table.name.clone(),
                org_name: column.name.clone(),
                ..OutputColumn::computed(0, &column.name, column.ty.clone())
            };
            write_field_list_column(&mut self.io, &described, charset);
        }
        Ok(())
    }

    /// An OK, with the flag that tells of further results.
    pub(super) fn with_more(mut ok: OkInfo, more: bool) -> OkInfo {
        ok.status.set(StatusFlags::SERVER_MORE_RESULTS_EXISTS, more);
        ok
    }
}

/// Error 1064 at a byte of the text.
fn syntax_error(text: &[u8], at: usize) -> Error {
    let near = String::from_utf8_lossy(&text[at..]).trim_start().chars().take(80).collect();
    Error::Parse { near, line: memchr::memchr_iter(b'\n', &text[..at]).count() + 1 }
}
