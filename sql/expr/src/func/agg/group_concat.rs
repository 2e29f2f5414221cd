//! GROUP_CONCAT([DISTINCT] … ORDER BY … SEPARATOR …).

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::AHashSet;
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result as DfResult, ScalarValue};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::{Aggregate, AggregateCall, collected};
use crate::array::Reader;
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::Expr;
use crate::func::compare::compare_datums;
use crate::func::registry;
use crate::row::{self, RowView};
use crate::types::field_type::LENGTH_UNSPECIFIED;
use crate::types::{Collation, Datum, FieldType};

/// Builds it: the first argument is the text, the others are the sort keys.
pub fn resolve(ctx: &Arc<EvalContext>, call: AggregateCall) -> Result<Aggregate> {
    let text = registry::resolve(ctx, "concat", call.args)?;
    let collation = text.field_type().collation;
    let field_type = FieldType::varchar(LENGTH_UNSPECIFIED, collation);
    let mut args = vec![text];
    let mut descending = Vec::new();
    for (key, desc) in call.order_by {
        args.push(key);
        descending.push(desc);
    }
    let udaf = Concat {
        types: args.iter().map(|a: &Expr| a.field_type().clone()).collect(),
        descending,
        distinct: call.distinct,
        separator: call.separator.unwrap_or_else(|| ",".to_string()),
        field_type: field_type.clone(),
        ctx: ctx.clone(),
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    let udaf = Arc::new(AggregateUDF::from(udaf));
    Ok(Aggregate { udaf, args, distinct: false, field_type, empty: Datum::Null })
}

#[derive(Debug, Clone)]
struct Concat {
    types: Vec<FieldType>,
    descending: Vec<bool>,
    distinct: bool,
    separator: String,
    field_type: FieldType,
    ctx: Arc<EvalContext>,
    signature: Signature,
}

impl PartialEq for Concat {
    fn eq(&self, other: &Concat) -> bool {
        self.types == other.types
            && self.descending == other.descending
            && self.distinct == other.distinct
            && self.separator == other.separator
    }
}

impl Eq for Concat {}

impl Hash for Concat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.types, &self.descending, self.distinct, &self.separator).hash(state);
    }
}

impl AggregateUDFImpl for Concat {
    fn name(&self) -> &str {
        "group_concat"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.field_type.arrow())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        Ok(collected::state_fields(args.name))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        Ok(Box::new(Collector { spec: self.clone(), seen: AHashSet::new(), entries: Vec::new(), size: 0 }))
    }
}

/// The texts of a group with their sort keys, in the order they came.
#[derive(Debug)]
struct Collector {
    spec: Concat,
    seen: AHashSet<Vec<u8>>,
    entries: Vec<Vec<Datum>>,
    size: usize,
}

impl Collector {
    fn add(&mut self, entry: Vec<Datum>) {
        let Some(text) = entry[0].as_bytes() else { return };
        self.size += text.len() + entry.len() * size_of::<Datum>();
        if !self.spec.distinct || self.seen.insert(self.spec.field_type.collation.sort_key(text)) {
            self.entries.push(entry);
        }
    }

    fn order(&self, a: &[Datum], b: &[Datum]) -> Ordering {
        let keys = self.spec.descending.iter().enumerate();
        let orders = keys.map(|(i, desc)| {
            let order = compare_datums(&a[i + 1], &b[i + 1], self.spec.types[i + 1].collation);
            if *desc { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }

    fn joined(&self) -> Option<Vec<u8>> {
        let limit = usize::try_from(self.spec.ctx.group_concat_max_len).unwrap_or(usize::MAX);
        let mut entries: Vec<&Vec<Datum>> = self.entries.iter().collect();
        entries.sort_by(|a, b| self.order(a, b));
        let mut out = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            if number > 0 {
                out.extend_from_slice(self.spec.separator.as_bytes());
            }
            out.extend_from_slice(entry[0].as_bytes().unwrap_or_default());
            if out.len() > limit {
                self.spec.ctx.warn(&Error::CutByGroupConcat { row: number as u64 + 1 });
                out.truncate(limit);
                while self.spec.field_type.collation != Collation::Binary
                    && std::str::from_utf8(&out).is_err()
                {
                    out.pop();
                }
                break;
            }
        }
        (!entries.is_empty()).then_some(out)
    }
}

impl Accumulator for Collector {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        let types = self.spec.types.clone();
        let readers: Vec<Reader<'_>> = values.iter().zip(&types).map(|(v, t)| Reader::new(v, t)).collect();
        for row in 0..values[0].len() {
            self.add(readers.iter().map(|r| r.get(row)).collect());
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        let types = self.spec.types.clone();
        for mut bytes in collected::state_bytes(states) {
            while let Some((len, rest)) = bytes.split_first_chunk::<4>() {
                let (entry, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
                bytes = rest;
                let view = RowView::new(entry)?;
                let values = types.iter().enumerate().map(|(i, t)| view.datum(i as i64, t, &Datum::Null));
                self.add(values.collect::<Result<Vec<Datum>>>()?);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let joined = self.joined();
        if self.spec.field_type.is_binary_string() {
            return Ok(ScalarValue::Binary(joined));
        }
        Ok(ScalarValue::Utf8(joined.map(|b| String::from_utf8_lossy(&b).into_owned())))
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        let mut all = Vec::new();
        for entry in &self.entries {
            let columns: Vec<(i64, &Datum)> = entry.iter().enumerate().map(|(i, d)| (i as i64, d)).collect();
            let mut encoded = Vec::new();
            row::encode(&columns, &mut encoded);
            all.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
            all.extend_from_slice(&encoded);
        }
        Ok(vec![ScalarValue::Binary(Some(all))])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.size
    }
}
