//! LOAD DATA [LOCAL] INFILE: a file's lines become rows.

use std::path::{Component, Path};
use std::sync::Arc;

use bytes::Bytes;
use rutile_expr::types::Datum;
use rutile_expr::{Charset, Collation, EvalContext, FieldType, OnBadValue};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::dml::CHUNK_ROWS;
use super::insert::{Inserter, NewRow};
use super::load_lines::{Field, LineReader};
use crate::catalog::model::TableInfo;
use crate::context::StatementContext;
use crate::parser::ast::{LoadConflict, LoadData, LoadTarget};
use crate::plan::{InsertPlan, InsertSource};
use crate::table::constraint;
use crate::{Error, Result};

const READ_SIZE_BYTES: usize = 256 << 10;

/// Runs LOAD DATA; what it did is in the context's effects.
///
/// `defaults`: the table's expression defaults, bound.
pub async fn execute(
    load: &LoadData,
    defaults: Vec<(usize, rutile_expr::Expr)>,
    ctx: &Arc<StatementContext>,
) -> Result<()> {
    if !load.assignments.is_empty() {
        return Err(Error::not_supported("LOAD DATA … SET"));
    }
    if !load.partitions.is_empty() {
        return Err(Error::not_supported("LOAD DATA … PARTITION"));
    }
    let table = table_of(load, ctx)?;
    let targets = targets_of(load, &table)?;
    // A client that sends its file cannot be stopped half way: LOCAL goes on after an error, as with IGNORE.
    let ignore =
        load.on_conflict == LoadConflict::Ignore || (load.local && load.on_conflict == LoadConflict::Error);
    let plan = InsertPlan {
        db: load.table.schema.clone().or_else(|| ctx.database.clone()).unwrap_or_default(),
        columns: targets.iter().flatten().copied().collect(),
        source: InsertSource::Values(Vec::new()),
        defaults,
        on_duplicate: Vec::new(),
        ignore,
        replace: load.on_conflict == LoadConflict::Replace,
        table,
    };
    let mut source = Source::open(load, ctx).await?;
    let eval = constraint::dml_context(&ctx.eval, ignore);
    let ty = text_type(load)?;
    let mut loader = Loader {
        inserter: Inserter::new(&plan, ctx, &eval).await?,
        eval: &eval,
        ty,
        targets,
        types: vec![],
        number: 0,
    };
    loader.types = vec![loader.ty.clone(); plan.columns.len()];
    let mut lines = LineReader::new(&load.format)?;
    let mut skip_left = load.skip_lines;
    let mut pending = Vec::with_capacity(CHUNK_ROWS);
    loop {
        ctx.check_cancelled()?;
        let piece = source.next().await?;
        let at_end = piece.is_none();
        lines.push(piece.as_deref().unwrap_or_default());
        while let Some(fields) = lines.next_line(at_end)? {
            if skip_left > 0 {
                skip_left -= 1;
                continue;
            }
            pending.push(loader.row(fields).await?);
            if pending.len() == CHUNK_ROWS {
                loader.inserter.write(std::mem::take(&mut pending)).await?;
            }
        }
        if at_end {
            break;
        }
    }
    loader.inserter.write(pending).await?;
    let counts = &loader.inserter.counts;
    let skipped = counts.records - counts.inserted;
    let warnings = eval.warnings.count();
    ctx.effects.set_info(format!(
        "Records: {}  Deleted: {}  Skipped: {skipped}  Warnings: {warnings}",
        counts.records, counts.deleted
    ));
    Ok(())
}

/// The table that is loaded.
pub fn table_of(load: &LoadData, ctx: &StatementContext) -> Result<Arc<TableInfo>> {
    let db = match &load.table.schema {
        Some(db) => db.as_str(),
        None => ctx.current_database()?,
    };
    let missing = || Error::NoSuchTable { db: db.to_owned(), table: load.table.name.clone() };
    ctx.schema.table(db, &load.table.name).cloned().ok_or_else(missing)
}

/// Where each field goes: the offset of a column, or nowhere.
fn targets_of(load: &LoadData, table: &TableInfo) -> Result<Vec<Option<usize>>> {
    if load.columns.is_empty() {
        return Ok(table.visible_columns().map(|(offset, _)| Some(offset)).collect());
    }
    let offset = |target: &LoadTarget| match target {
        // Without SET nobody reads the variable while the rows are loaded.
        LoadTarget::UserVar(_) => Ok(None),
        LoadTarget::Column(name) => {
            let found = table.column(name).map(|(offset, _)| Some(offset));
            found.ok_or_else(|| Error::bad_field(name.clone(), "field list"))
        }
    };
    load.columns.iter().map(offset).collect()
}

/// The type of fields: text in the file's character set.
fn text_type(load: &LoadData) -> Result<FieldType> {
    let collation = match &load.format.charset {
        None => Collation::DEFAULT,
        Some(name) if name.eq_ignore_ascii_case("binary") => Collation::Binary,
        Some(name) => Charset::from_name(name)?.default_collation(),
    };
    Ok(FieldType::varchar(u32::MAX, collation))
}

/// Makes rows of fields.
struct Loader<'a> {
    inserter: Inserter<'a>,
    eval: &'a EvalContext,
    ty: FieldType,
    targets: Vec<Option<usize>>,
    types: Vec<FieldType>,
    number: usize,
}

impl Loader<'_> {
    async fn row(&mut self, fields: Vec<Field>) -> Result<NewRow> {
        self.number += 1;
        let given = fields.len();
        if given < self.targets.len() {
            self.complain(Error::TooFewRecords { row: self.number })?;
        } else if given > self.targets.len() {
            self.complain(Error::TooManyRecords { row: self.number })?;
        }
        let mut fields = fields.into_iter();
        let mut source = Vec::with_capacity(self.types.len());
        for target in &self.targets {
            let field = fields.next();
            if target.is_some() {
                source.push(match field {
                    Some(Field::Value(bytes)) => self.text(bytes)?,
                    Some(Field::Null) | None => Datum::Null,
                });
            }
        }
        self.inserter.row_of_source(source, &self.types).await
    }

    fn text(&self, bytes: Vec<u8>) -> Result<Datum> {
        if self.ty.collation == Collation::Binary {
            return Ok(Datum::Bytes(bytes));
        }
        let charset = self.ty.collation.charset();
        match charset.decode(&bytes) {
            Some(text) => Ok(Datum::String(text.into_owned())),
            None => Err(Error::InvalidCharacterString {
                charset: charset.name().to_owned(),
                text: String::from_utf8_lossy(&bytes).chars().take(10).collect(),
            }),
        }
    }

    fn complain(&self, error: Error) -> Result<()> {
        if self.eval.on_bad_value == OnBadValue::Fail {
            return Err(error);
        }
        self.eval.warnings.push(rutile_expr::context::Level::Warning, error.code(), error.to_string());
        Ok(())
    }
}

/// The file, piece by piece.
enum Source {
    Client(mpsc::Receiver<Bytes>),
    Server(tokio::fs::File),
}

impl Source {
    async fn open(load: &LoadData, ctx: &StatementContext) -> Result<Self> {
        if load.local {
            let files = ctx.local_files.as_ref().filter(|_| ctx.settings.local_infile);
            let files = files.ok_or(Error::LocalInfileDisabled)?;
            return Ok(Source::Client(files.open(&load.path).await?));
        }
        let refused = || Error::OptionPreventsStatement { option: "--secure-file-priv".to_owned() };
        let allowed = ctx.settings.secure_file_priv.as_deref().ok_or_else(refused)?;
        let path = Path::new(&load.path);
        let climbs = path.components().any(|c| c == Component::ParentDir);
        if !allowed.is_empty() && (climbs || !path.starts_with(allowed)) {
            return Err(refused());
        }
        let file = tokio::fs::File::open(path).await;
        let missing =
            |e: std::io::Error| Error::FileNotFound { path: load.path.clone(), reason: e.to_string() };
        Ok(Source::Server(file.map_err(missing)?))
    }

    /// `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Source::Client(pieces) => Ok(pieces.recv().await),
            Source::Server(file) => {
                let mut piece = vec![0; READ_SIZE_BYTES];
                let read = file.read(&mut piece).await;
                let read = read.map_err(|e| Error::internal(format!("reading the file: {e}")))?;
                piece.truncate(read);
                Ok((read > 0).then(|| piece.into()))
            }
        }
    }
}
