//! Running a statement for a connection: its rows into the out buffer while they are computed, the file a LOAD DATA LOCAL
//! asks for, the rows behind a cursor; and an eye on the client, whose going ends the statement.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use tokio::sync::mpsc;

use super::codec::{Reader, put_lenenc_int};
use super::connection::{Conn, ConnectionError, Cursor};
use super::packet::PacketIo;
use super::response::{write_column, write_end, write_eof, write_error, write_ok};
use super::resultset::{BatchWriter, RowFormat, normalize};
use crate::context::{LocalFileRequest, LocalFiles, Rows};
use crate::parser::ast::Statement;
use crate::plan::{Schema, SchemaRef};
use crate::session::{QueryResult, Request, ResultSet};
use crate::{Error, Result};

type Outcome<T> = std::result::Result<T, ConnectionError>;

/// Pieces of a client's file that wait for the statement at most.
const FILE_PIECES_MAX: usize = 8;

impl Conn {
    /// Runs one statement and appends its answer; `more` tells the client that another answer follows. Answers whether
    /// the statement went well.
    pub(super) async fn run_statement(
        &mut self,
        statement: Arc<Statement>,
        request: Request,
        format: RowFormat,
        more: bool,
    ) -> Outcome<bool> {
        match self.start_statement(statement, request).await? {
            Ok(QueryResult::Ok(ok)) => {
                write_ok(&mut self.io, self.capabilities, 0, &Conn::with_more(ok, more));
                Ok(true)
            }
            Ok(QueryResult::Rows(result)) => self.send_rows(result, format, more).await,
            Err(error) => {
                write_error(&mut self.io, self.capabilities, &error);
                Ok(false)
            }
        }
    }

    /// Runs a statement until its rows begin, while watching the client.
    async fn start_statement(
        &mut self,
        statement: Arc<Statement>,
        mut request: Request,
    ) -> Outcome<Result<QueryResult>> {
        if matches!(&*statement, Statement::LoadData(load) if load.local) {
            return Box::pin(self.load_local(statement, request)).await;
        }
        request.local_files = None;
        let connection = Arc::clone(self.session.connection());
        let execution = self.session.execute(statement, request);
        tokio::pin!(execution);
        tokio::select! {
            biased;
            result = &mut execution => return Ok(result),
            () = self.io.closed() => connection.kill_query(),
        }
        // The client has gone: let the statement clean up, and let nobody wait for its answer.
        let _ = execution.await;
        Err(gone())
    }

    async fn load_local(
        &mut self,
        statement: Arc<Statement>,
        mut request: Request,
    ) -> Outcome<Result<QueryResult>> {
        if !self.capabilities.contains(CapabilityFlags::CLIENT_LOCAL_FILES) {
            return Ok(Err(Error::LocalInfileDisabled));
        }
        let (files, mut requests) = LocalFiles::channel();
        request.local_files = Some(files);
        let connection = Arc::clone(self.session.connection());
        let execution = self.session.execute(statement, request);
        tokio::pin!(execution);
        let asked = tokio::select! {
            biased;
            result = &mut execution => return Ok(result),
            asked = requests.recv() => asked,
        };
        let Some(asked) = asked else { return Ok(execution.await) };
        let (result, sent) = {
            let receive = receive_file(&mut self.io, asked);
            tokio::pin!(receive);
            tokio::select! {
                biased;
                sent = &mut receive => match sent {
                    Ok(()) => (execution.await, Ok(())),
                    Err(error) => {
                        connection.kill_query();
                        (execution.await, Err(error))
                    }
                },
                // The client sends to the end whatever becomes of the statement.
                result = &mut execution => (result, receive.await),
            }
        };
        sent?;
        Ok(result)
    }

    /// Sends a result set.
    async fn send_rows(&mut self, result: ResultSet, format: RowFormat, more: bool) -> Outcome<bool> {
        let ResultSet { schema, rows, context } = result;
        let connection = Arc::clone(self.session.connection());
        let charset = self.session.settings().results;
        let mut sender = RowSender { schema, format, charset, sent: 0, capabilities: self.capabilities };
        let status = self.session.status();
        let streamed = {
            let streaming = sender.stream(&mut self.io, rows, status);
            tokio::pin!(streaming);
            tokio::select! {
                biased;
                streamed = &mut streaming => streamed,
                () = context.cancel.cancelled() => Ok(Err(Error::QueryInterrupted)),
            }
        };
        let (outcome, lost) = match streamed {
            Ok(outcome) => (outcome, None),
            Err(error) => {
                connection.kill_query();
                (Err(Error::QueryInterrupted), Some(error))
            }
        };
        let finished = self.session.finish_rows(context, sender.sent, outcome).await;
        if let Some(error) = lost {
            return Err(error.into());
        }
        match finished {
            Ok(ok) => {
                write_end(&mut self.io, self.capabilities, &Conn::with_more(ok, more));
                Ok(true)
            }
            Err(error) => {
                write_error(&mut self.io, self.capabilities, &error);
                Ok(false)
            }
        }
    }

    /// Executes a SELECT and keeps its rows for COM_STMT_FETCH.
    pub(super) async fn open_cursor(&mut self, statement: Arc<Statement>, request: Request) -> Outcome<()> {
        let id = request.prepared.unwrap_or_default();
        let ResultSet { schema, rows, context } = match self.start_statement(statement, request).await? {
            Ok(QueryResult::Rows(result)) => result,
            Ok(QueryResult::Ok(ok)) => {
                write_ok(&mut self.io, self.capabilities, 0, &ok);
                return Ok(());
            }
            Err(error) => {
                write_error(&mut self.io, self.capabilities, &error);
                return Ok(());
            }
        };
        let collected = collect(rows).await;
        let (batches, outcome) = match collected {
            Ok(batches) => (batches, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let count = batches.iter().map(RecordBatch::num_rows).sum::<usize>() as u64;
        let mut ok = match self.session.finish_rows(context, count, outcome).await {
            Ok(ok) => ok,
            Err(error) => {
                write_error(&mut self.io, self.capabilities, &error);
                return Ok(());
            }
        };
        let charset = self.session.settings().results;
        write_count(&mut self.io, schema.len());
        schema.columns.iter().for_each(|column| write_column(&mut self.io, column, charset));
        ok.status.insert(StatusFlags::SERVER_STATUS_CURSOR_EXISTS);
        write_end(&mut self.io, self.capabilities, &ok);
        if let Some(state) = self.statements.get_mut(&id) {
            state.cursor = Some(Cursor { schema, batches, position: (0, 0) });
        }
        Ok(())
    }

    /// COM_STMT_FETCH: the next rows of a cursor.
    pub(super) async fn fetch(&mut self, body: &Bytes) -> Outcome<()> {
        let mut reader = Reader::new(body);
        let (Ok(id), Ok(count)) = (reader.u32(), reader.u32()) else {
            self.error(&Error::MalformedPacket);
            return Ok(());
        };
        if let Err(error) = self.session.prepared.get(id, "mysqld_stmt_fetch") {
            self.error(&error);
            return Ok(());
        }
        let charset = self.session.settings().results;
        let capabilities = self.capabilities;
        let taken = self.statements.get_mut(&id).and_then(|state| state.cursor.take());
        let Some(mut cursor) = taken else {
            self.error(&Error::NoOpenCursor { id });
            return Ok(());
        };
        let schema = Arc::clone(&cursor.schema);
        let mut sender = RowSender { schema, format: RowFormat::Binary, charset, sent: 0, capabilities };
        let mut left = count as usize;
        while left > 0 && cursor.position.0 < cursor.batches.len() {
            let (batch, row) = cursor.position;
            let batch = &cursor.batches[batch];
            let end = batch.num_rows().min(row + left);
            if let Err(error) = sender.send(&mut self.io, batch, row..end).await? {
                self.error(&error);
                return Ok(());
            }
            left -= end - row;
            cursor.position.1 = end;
            if end == batch.num_rows() {
                cursor.position = (cursor.position.0 + 1, 0);
            }
        }
        let mut ok = self.session.command_ok();
        // The last rows are announced as such only when a fetch finds no more.
        let exhausted = left > 0 && cursor.position.0 >= cursor.batches.len();
        ok.status.insert(match exhausted {
            true => StatusFlags::SERVER_STATUS_LAST_ROW_SENT,
            false => StatusFlags::SERVER_STATUS_CURSOR_EXISTS,
        });
        write_end(&mut self.io, self.capabilities, &ok);
        if !exhausted && let Some(state) = self.statements.get_mut(&id) {
            state.cursor = Some(cursor);
        }
        Ok(())
    }
}

fn gone() -> ConnectionError {
    ConnectionError::Io(std::io::ErrorKind::ConnectionAborted.into())
}

fn write_count(io: &mut PacketIo, columns: usize) {
    put_lenenc_int(io.begin_packet(), columns as u64);
    io.end_packet();
}

/// All rows of a result.
async fn collect(rows: Rows) -> Result<Vec<RecordBatch>> {
    match rows {
        Rows::Batches(batches) => Ok(batches),
        Rows::Stream(mut stream) => {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await {
                batches.push(batch?);
            }
            Ok(batches)
        }
    }
}

/// Rows of one result set on their way out.
struct RowSender {
    schema: SchemaRef,
    format: RowFormat,
    charset: Option<(rutile_expr::types::Charset, u16)>,
    sent: u64,
    capabilities: CapabilityFlags,
}

impl RowSender {
    /// Sends columns and rows. The first batch is computed before anything is written, so that most errors come alone.
    async fn stream(
        &mut self,
        io: &mut PacketIo,
        rows: Rows,
        status: StatusFlags,
    ) -> std::io::Result<Result<()>> {
        match rows {
            Rows::Batches(batches) => {
                self.begin(io, status);
                for batch in &batches {
                    if let Err(error) = self.send(io, batch, 0..batch.num_rows()).await? {
                        return Ok(Err(error));
                    }
                }
            }
            Rows::Stream(mut stream) => {
                let mut next = stream.next().await.transpose();
                if let Err(error) = next {
                    return Ok(Err(error));
                }
                self.begin(io, status);
                loop {
                    let batch = match next {
                        Ok(Some(batch)) => batch,
                        Ok(None) => break,
                        Err(error) => return Ok(Err(error)),
                    };
                    if let Err(error) = self.send(io, &batch, 0..batch.num_rows()).await? {
                        return Ok(Err(error));
                    }
                    next = stream.next().await.transpose();
                }
            }
        }
        Ok(Ok(()))
    }

    fn begin(&self, io: &mut PacketIo, status: StatusFlags) {
        write_count(io, self.schema.len());
        self.schema.columns.iter().for_each(|column| write_column(io, column, self.charset));
        if !self.capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF) {
            write_eof(io, status, 0);
        }
    }

    async fn send(
        &mut self,
        io: &mut PacketIo,
        batch: &RecordBatch,
        rows: std::ops::Range<usize>,
    ) -> std::io::Result<Result<()>> {
        let schema: &Schema = &self.schema;
        let normal = match normalize(batch, &schema.columns) {
            Ok(normal) => normal,
            Err(error) => return Ok(Err(error)),
        };
        let arrays = normal.as_deref().unwrap_or(batch.columns());
        let charset = self.charset.map(|(charset, _)| charset);
        let writer = match BatchWriter::new(arrays, &schema.columns, self.format, charset) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error)),
        };
        for row in rows {
            writer.write_row(row, io.begin_packet());
            io.end_packet();
            self.sent += 1;
            io.flush_if_large().await?;
        }
        Ok(Ok(()))
    }
}

/// Asks the client for a file and hands its pieces on, up to the empty packet that ends it.
async fn receive_file(io: &mut PacketIo, request: LocalFileRequest) -> Outcome<()> {
    let out = io.begin_packet();
    out.push(0xfb);
    out.extend_from_slice(request.path.as_bytes());
    io.end_packet();
    io.flush().await?;
    let (pieces, receiver) = mpsc::channel(FILE_PIECES_MAX);
    let mut wanted = request.reply.send(receiver).is_ok();
    loop {
        let piece = io.read().await?;
        if piece.is_empty() {
            return Ok(());
        }
        // A statement that has failed wants no more, but the client sends on.
        if wanted && pieces.send(piece).await.is_err() {
            wanted = false;
        }
    }
}
