//! Plans and answers as bytes. See `copr.proto`.

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use prost::Message;
use rutile_proto::copr;
use rutile_proto::copr::scan_column::Source as WireSource;
use rutile_proto::copr::step::Step as WireStep;

use super::scan::{ColumnFrom, IndexPart, ScanColumn, ScanSource, ScanSpec};
use super::wire_expr::{
    decode_context, decode_datum, decode_expr, decode_type, encode_context, encode_datum, encode_expr,
    encode_type, malformed,
};
use super::{Step, StorePlan, aggregate, can_run_in_store};
use crate::context::{EvalContext, Level, Warnings};
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::func::agg::AggregateCall;
use crate::types::FieldType;

/// `coprocessor.Request.tp` of these plans.
pub const REQUEST_KIND: i64 = 1001;
/// Of the format of plans. Also to be raised when the states of partial groups change.
const VERSION: u32 = 1;

/// A plan with the context it runs in.
#[must_use]
pub fn encode_plan(plan: &StorePlan, ctx: &EvalContext, memory_max_bytes: u64) -> Bytes {
    let plan = copr::Plan {
        version: VERSION,
        context: Some(encode_context(ctx)),
        scan: Some(encode_scan(&plan.scan, plan.desc)),
        steps: plan.steps.iter().map(encode_step).collect(),
        memory_max_bytes,
    };
    plan.encode_to_vec().into()
}

/// A plan from outside, checked; the memory that it may use, 0 if it does not say.
pub fn decode_plan(bytes: &[u8]) -> Result<(StorePlan, EvalContext, u64)> {
    let plan = copr::Plan::decode(bytes).map_err(malformed)?;
    if plan.version != VERSION {
        return Err(malformed(format!("version {} where {VERSION} is known", plan.version)));
    }
    let ctx = decode_context(plan.context.ok_or_else(|| malformed("no context"))?)?;
    let (scan, desc) = decode_scan(plan.scan.ok_or_else(|| malformed("no scan"))?)?;
    let mut types: Vec<FieldType> = scan.columns.iter().map(|column| column.field_type.clone()).collect();
    let mut steps = Vec::with_capacity(plan.steps.len());
    for step in plan.steps {
        if matches!(steps.last(), Some(Step::Aggregate { .. })) {
            return Err(malformed("a step behind partial groups"));
        }
        let step = decode_step(step, &types)?;
        if let Step::Project(exprs) = &step {
            types = exprs.iter().map(|expr| expr.field_type().clone()).collect();
        }
        check_step(&step, &ctx)?;
        steps.push(step);
    }
    Ok((StorePlan { scan: Arc::new(scan), desc, steps }, ctx, plan.memory_max_bytes))
}

fn check_step(step: &Step, ctx: &EvalContext) -> Result<()> {
    let check = |expr: &Expr| {
        let mut params_known = true;
        expr.visit(&mut |part| {
            params_known &= !matches!(part, Expr::Param { index, .. } if *index >= ctx.params.len());
            params_known
        });
        match can_run_in_store(expr) && params_known {
            true => Ok(()),
            false => Err(malformed(format!("{expr} cannot be evaluated in a store"))),
        }
    };
    match step {
        Step::Filter(exprs) | Step::Project(exprs) => exprs.iter().try_for_each(check),
        Step::Aggregate { group, calls } => {
            group.iter().try_for_each(check)?;
            calls.iter().flat_map(|call| &call.args).try_for_each(check)
        }
        Step::TopN { keys, .. } => keys.iter().try_for_each(|(key, _)| check(key)),
        Step::Sample(rate) if !(0.0..=1.0).contains(rate) => Err(malformed(format!("sample rate {rate}"))),
        Step::Limit(_) | Step::Sample(_) => Ok(()),
    }
}

fn encode_scan(scan: &ScanSpec, desc: bool) -> copr::Scan {
    let column = |column: &ScanColumn| copr::ScanColumn {
        r#type: Some(encode_type(&column.field_type)),
        source: Some(match &column.from {
            ColumnFrom::Stored { id, missing } => {
                WireSource::Stored(copr::StoredColumn { id: *id, missing: Some(encode_datum(missing)) })
            }
            ColumnFrom::Handle => WireSource::Handle(true),
            ColumnFrom::Part(part) => WireSource::IndexPart(*part as u32),
        }),
    };
    let part = |part: &IndexPart| copr::IndexPart {
        column_id: part.column_id,
        r#type: Some(encode_type(&part.field_type)),
        prefix_len: part.prefix_len,
        descending: part.descending,
    };
    let (is_index, parts) = match &scan.source {
        ScanSource::Rows => (false, Vec::new()),
        ScanSource::Entries(parts) => (true, parts.iter().map(part).collect()),
    };
    copr::Scan { columns: scan.columns.iter().map(column).collect(), desc, is_index, parts }
}

fn decode_scan(scan: copr::Scan) -> Result<(ScanSpec, bool)> {
    let column = |column: copr::ScanColumn| -> Result<ScanColumn> {
        let from = match column.source.ok_or_else(|| malformed("a column without a source"))? {
            WireSource::Stored(stored) => {
                ColumnFrom::Stored { id: stored.id, missing: decode_datum(stored.missing)? }
            }
            WireSource::IndexPart(part) => ColumnFrom::Part(part as usize),
            WireSource::Handle(_) => ColumnFrom::Handle,
        };
        Ok(ScanColumn { field_type: decode_type(column.r#type)?, from })
    };
    let part = |part: copr::IndexPart| -> Result<IndexPart> {
        let field_type = decode_type(part.r#type)?;
        let (column_id, prefix_len) = (part.column_id, part.prefix_len);
        Ok(IndexPart { column_id, field_type, prefix_len, descending: part.descending })
    };
    let source = match scan.is_index {
        false => ScanSource::Rows,
        true => ScanSource::Entries(scan.parts.into_iter().map(part).collect::<Result<_>>()?),
    };
    let spec = ScanSpec { source, columns: scan.columns.into_iter().map(column).collect::<Result<_>>()? };
    spec.check()?;
    Ok((spec, scan.desc))
}

fn encode_all(exprs: &[Expr]) -> Vec<copr::Expr> {
    exprs.iter().map(encode_expr).collect()
}

fn encode_keys(keys: &[(Expr, bool)]) -> Vec<copr::SortKey> {
    keys.iter().map(|(expr, desc)| copr::SortKey { expr: Some(encode_expr(expr)), desc: *desc }).collect()
}

fn encode_step(step: &Step) -> copr::Step {
    let step = match step {
        Step::Filter(predicates) => WireStep::Filter(copr::Filter { predicates: encode_all(predicates) }),
        Step::Project(exprs) => WireStep::Project(copr::Project { exprs: encode_all(exprs) }),
        Step::Aggregate { group, calls } => {
            let call = |call: &AggregateCall| copr::AggregateCall {
                name: call.name.clone(),
                args: encode_all(&call.args),
                distinct: call.distinct,
                order_by: encode_keys(&call.order_by),
                separator: call.separator.clone(),
            };
            let calls = calls.iter().map(call).collect();
            WireStep::Aggregate(copr::Aggregate { group: encode_all(group), calls })
        }
        Step::TopN { keys, limit } => {
            WireStep::TopN(copr::TopN { keys: encode_keys(keys), limit: *limit as u64 })
        }
        Step::Limit(limit) => WireStep::Limit(*limit as u64),
        Step::Sample(rate) => WireStep::Sample(copr::Sample { rate: *rate }),
    };
    copr::Step { step: Some(step) }
}

fn decode_all(exprs: Vec<copr::Expr>, input: &[FieldType]) -> Result<Vec<Expr>> {
    exprs.into_iter().map(|expr| decode_expr(expr, input)).collect()
}

fn decode_keys(keys: Vec<copr::SortKey>, input: &[FieldType]) -> Result<Vec<(Expr, bool)>> {
    let key = |key: copr::SortKey| {
        let expr = key.expr.ok_or_else(|| malformed("a sort key without an expression"))?;
        Ok((decode_expr(expr, input)?, key.desc))
    };
    keys.into_iter().map(key).collect()
}

fn decode_step(step: copr::Step, input: &[FieldType]) -> Result<Step> {
    let limit = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(match step.step.ok_or_else(|| malformed("an unknown step"))? {
        WireStep::Filter(filter) => Step::Filter(decode_all(filter.predicates, input)?),
        WireStep::Project(project) => Step::Project(decode_all(project.exprs, input)?),
        WireStep::Aggregate(aggregate) => {
            let call = |call: copr::AggregateCall| -> Result<AggregateCall> {
                Ok(AggregateCall {
                    name: call.name,
                    args: decode_all(call.args, input)?,
                    distinct: call.distinct,
                    order_by: decode_keys(call.order_by, input)?,
                    separator: call.separator,
                })
            };
            let calls = aggregate.calls.into_iter().map(call).collect::<Result<Vec<_>>>()?;
            let group = decode_all(aggregate.group, input)?;
            if group.is_empty() && calls.is_empty() {
                return Err(malformed("groups of nothing"));
            }
            Step::Aggregate { group, calls }
        }
        WireStep::TopN(top) => {
            let keys = decode_keys(top.keys, input)?;
            if keys.is_empty() {
                return Err(malformed("an order of nothing"));
            }
            Step::TopN { keys, limit: limit(top.limit) }
        }
        WireStep::Limit(count) => Step::Limit(limit(count)),
        WireStep::Sample(sample) => Step::Sample(sample.rate),
    })
}

/// The schema of what the plan's last step gives.
pub fn output_schema(plan: &StorePlan, ctx: &Arc<EvalContext>) -> Result<SchemaRef> {
    let mut schema = plan.scan.arrow();
    for step in &plan.steps {
        schema = match step {
            Step::Project(exprs) => super::pipeline::project_schema(exprs),
            Step::Aggregate { group, calls } => {
                aggregate::Grouping::new(group, calls, &schema, ctx)?.partial_schema()?
            }
            _ => schema,
        };
    }
    Ok(schema)
}

/// Batches of one schema as an Arrow IPC stream; empty for no batches.
pub fn encode_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes> {
    if batches.is_empty() {
        return Ok(Bytes::new());
    }
    let size: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut writer = StreamWriter::try_new(Vec::with_capacity(size + 1024), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// The batches of such a stream; their arrays share its memory where alignment allows.
pub fn decode_batches(bytes: Bytes) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut buffer = Buffer::from(bytes);
    let mut decoder = StreamDecoder::new();
    while !buffer.is_empty() {
        if let Some(batch) = decoder.decode(&mut buffer)? {
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// Warnings as they travel: those that were kept, and how many there were.
#[must_use]
pub fn encode_warnings(warnings: &Warnings) -> (Vec<copr::Warning>, u64) {
    let level = |level: Level| match level {
        Level::Note => 0,
        Level::Warning => 1,
        Level::Error => 2,
    };
    let kept = warnings.list().into_iter().map(|warning| copr::Warning {
        level: level(warning.level),
        code: u32::from(warning.code),
        message: warning.message,
    });
    (kept.collect(), warnings.count())
}

/// Adds warnings that came from a store.
pub fn add_warnings(warnings: &Warnings, from_store: Vec<copr::Warning>, count: u64) {
    let mut left = count;
    for warning in from_store {
        let level = match warning.level {
            0 => Level::Note,
            1 => Level::Warning,
            _ => Level::Error,
        };
        warnings.push(level, u16::try_from(warning.code).unwrap_or(1105), warning.message);
        left = left.saturating_sub(1);
    }
    warnings.add_unkept(left);
}

/// An error as it travels.
#[must_use]
pub fn encode_error(error: &Error) -> copr::Error {
    copr::Error {
        code: u32::from(error.code()),
        sqlstate: error.sqlstate().to_owned(),
        message: error.to_string(),
    }
}

/// An error that came from a store.
#[must_use]
pub fn decode_error(error: copr::Error) -> Error {
    let code = u16::try_from(error.code).unwrap_or(1105);
    Error::InStore { code, sqlstate: error.sqlstate, message: error.message }
}
