//! Evaluation over a batch of columns or over one row of datums.

use arrow::array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, UInt64Array};
use arrow::record_batch::RecordBatch;

use crate::array::{ColumnBuilder, Reader, repeat};
use crate::context::EvalContext;
use crate::error::{Error, Result};
use crate::expr::{Call, Expr, Scope, Volatility};
use crate::types::{Datum, FieldType, convert};

/// Where columns come from.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    Batch(&'a RecordBatch),
    /// One row; empty when there are no columns.
    Row(&'a [Datum]),
}

impl Input<'_> {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Input::Batch(batch) => batch.num_rows(),
            Input::Row(_) => 1,
        }
    }
}

/// A result: one value for all rows, or one for each.
#[derive(Debug, Clone)]
pub enum Value {
    Scalar(Datum),
    Array(ArrayRef),
}

impl Value {
    /// One value per row.
    pub fn into_array(self, field_type: &FieldType, rows: usize) -> Result<ArrayRef> {
        match self {
            Value::Array(array) => Ok(array),
            Value::Scalar(value) => repeat(field_type, &value, rows),
        }
    }

    /// The value, when it is the same for all rows.
    #[must_use]
    pub fn as_scalar(&self) -> Option<&Datum> {
        match self {
            Value::Scalar(value) => Some(value),
            Value::Array(_) => None,
        }
    }

    /// The value of one row.
    #[must_use]
    pub fn get(&self, field_type: &FieldType, row: usize) -> Datum {
        match self {
            Value::Scalar(value) => value.clone(),
            Value::Array(array) => crate::array::datum_at(array, field_type, row),
        }
    }
}

/// Reads rows of a value.
enum Rows<'a> {
    Scalar(&'a Datum),
    Array(Reader<'a>),
}

impl Expr {
    /// Evaluates over a batch: an array of the Arrow type that belongs to the expression's type.
    pub fn eval(&self, ctx: &EvalContext, batch: &RecordBatch) -> Result<ArrayRef> {
        self.eval_value(ctx, &Input::Batch(batch))?.into_array(self.field_type(), batch.num_rows())
    }

    /// Evaluates as WHERE does: true, false or NULL per row.
    pub fn eval_predicate(&self, ctx: &EvalContext, batch: &RecordBatch) -> Result<BooleanArray> {
        let value = self.eval_value(ctx, &Input::Batch(batch))?;
        truth_of(ctx, &value, self.field_type(), batch.num_rows())
    }

    /// Evaluates, keeping a value that all rows share as one.
    pub fn eval_value(&self, ctx: &EvalContext, input: &Input<'_>) -> Result<Value> {
        match self {
            Expr::Column { index, field_type, .. } => match input {
                Input::Batch(batch) => {
                    let column = batch.columns().get(*index);
                    column.cloned().map(Value::Array).ok_or_else(|| {
                        Error::Internal(format!("no column {index} ({field_type:?}) in the input"))
                    })
                }
                Input::Row(row) => {
                    let value = row.get(*index).cloned().map(Value::Scalar);
                    value.ok_or_else(|| Error::Internal(format!("no column {index} in the input")))
                }
            },
            Expr::Literal { value, .. } => Ok(Value::Scalar(value.clone())),
            Expr::Param { index, field_type } => {
                let value = ctx.params.get(*index);
                let value =
                    value.ok_or_else(|| Error::Internal(format!("parameter {index} has no value")))?;
                adapt_param(ctx, value, field_type).map(Value::Scalar)
            }
            Expr::Call(call) => call.eval_value(ctx, input),
        }
    }
}

/// A parameter may come in another form than the one the plan was made for.
fn adapt_param(ctx: &EvalContext, value: &Datum, to: &FieldType) -> Result<Datum> {
    use crate::types::field_type::Family as F;
    let fits = match (value, to.family()) {
        (Datum::Null, _)
        | (Datum::Double(_), F::Double)
        | (Datum::Time(_), F::Time)
        | (Datum::Duration(_), F::Duration)
        | (_, F::Null) => true,
        (Datum::Int(_), F::Int) => !to.unsigned,
        (Datum::UInt(_), F::Int | F::Enum) => to.unsigned,
        (Datum::Decimal(d), F::Decimal) => d.scale() == to.decimals,
        (Datum::String(_), F::String) => !to.is_binary_string(),
        (Datum::Bytes(_), F::String) => to.is_binary_string(),
        _ => false,
    };
    if fits {
        return Ok(value.clone());
    }
    convert::cast(ctx, value, &type_of(value), to)
}

/// The type that a bare value has.
#[must_use]
pub fn type_of(value: &Datum) -> FieldType {
    use crate::types::Collation;
    match value {
        Datum::Null => FieldType::null(),
        Datum::Int(_) => FieldType::bigint(),
        Datum::UInt(_) => FieldType::bigint_unsigned(),
        Datum::Double(_) => FieldType::double(),
        Datum::Decimal(d) => FieldType::decimal(d.precision(), d.scale()),
        Datum::String(s) => FieldType::varchar(s.chars().count() as u32, Collation::DEFAULT),
        Datum::Bytes(b) => FieldType::varchar(b.len() as u32, Collation::Binary),
        Datum::Time(t) => FieldType::datetime(if t.micros() == 0 { 0 } else { 6 }),
        Datum::Duration(d) => FieldType::time(if d.micros() == 0 { 0 } else { 6 }),
    }
}

impl Call {
    fn eval_value(&self, ctx: &EvalContext, input: &Input<'_>) -> Result<Value> {
        let scope = Scope { ctx, call: self };
        if let Some(lazy) = self.func.lazy {
            return lazy(&scope, input);
        }
        let args = self.args.iter().map(|arg| arg.eval_value(ctx, input)).collect::<Result<Vec<Value>>>()?;
        self.apply(ctx, &args, input.rows())
    }

    /// Applies the function to evaluated arguments.
    pub fn apply(&self, ctx: &EvalContext, args: &[Value], rows: usize) -> Result<Value> {
        let scope = Scope { ctx, call: self };
        let all_scalar = args.iter().all(|arg| matches!(arg, Value::Scalar(_)));
        if all_scalar && (rows == 1 || self.func.volatility < Volatility::Volatile) {
            let values: Vec<Datum> = args.iter().filter_map(|arg| arg.as_scalar().cloned()).collect();
            return self.call_scalar(&scope, &values).map(Value::Scalar);
        }
        if let Some(vector) = self.func.vector
            && let Some(result) = vector(&scope, args, rows)
        {
            return result;
        }
        self.lift(&scope, args, rows)
    }

    fn call_scalar(&self, scope: &Scope<'_>, values: &[Datum]) -> Result<Datum> {
        if self.func.null_in_null_out && values.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        (self.func.scalar)(scope, values)
    }

    /// Calls the scalar function for every row.
    fn lift(&self, scope: &Scope<'_>, args: &[Value], rows: usize) -> Result<Value> {
        let readers: Vec<Rows<'_>> = args
            .iter()
            .zip(&self.args)
            .map(|(value, arg)| match value {
                Value::Scalar(value) => Rows::Scalar(value),
                Value::Array(array) => Rows::Array(Reader::new(array, arg.field_type())),
            })
            .collect();
        let mut values: Vec<Datum> = readers
            .iter()
            .map(|reader| if let Rows::Scalar(value) = reader { (*value).clone() } else { Datum::Null })
            .collect();
        let mut builder = ColumnBuilder::new(&self.field_type, rows);
        for row in 0..rows {
            for (value, reader) in values.iter_mut().zip(&readers) {
                if let Rows::Array(reader) = reader {
                    *value = reader.get(row);
                }
            }
            builder.push(&self.call_scalar(scope, &values)?)?;
        }
        Ok(Value::Array(builder.finish()))
    }
}

/// The truth of a value per row, as WHERE, AND, OR, NOT and IF see it.
pub fn truth_of(
    ctx: &EvalContext,
    value: &Value,
    field_type: &FieldType,
    rows: usize,
) -> Result<BooleanArray> {
    let array = match value {
        Value::Scalar(value) => {
            let truth = convert::truth(ctx, value, field_type)?;
            return Ok(match truth {
                Some(truth) => BooleanArray::from(vec![truth; rows]),
                None => BooleanArray::new_null(rows),
            });
        }
        Value::Array(array) => array,
    };
    let nulls = array.nulls().cloned();
    if let Some(ints) = array.as_any().downcast_ref::<Int64Array>() {
        let bits = ints.values().iter().map(|v| *v != 0).collect();
        return Ok(BooleanArray::new(bits, nulls));
    }
    if let Some(ints) = array.as_any().downcast_ref::<UInt64Array>() {
        let bits = ints.values().iter().map(|v| *v != 0).collect();
        return Ok(BooleanArray::new(bits, nulls));
    }
    if let Some(doubles) = array.as_any().downcast_ref::<Float64Array>() {
        let bits = doubles.values().iter().map(|v| *v != 0.0).collect();
        return Ok(BooleanArray::new(bits, nulls));
    }
    let reader = Reader::new(array, field_type);
    (0..rows).map(|row| convert::truth(ctx, &reader.get(row), field_type)).collect()
}

/// 1, 0 or NULL per row, of truths.
#[must_use]
pub fn ints_of(truths: &BooleanArray) -> ArrayRef {
    let values: arrow::buffer::ScalarBuffer<i64> = truths.values().iter().map(i64::from).collect();
    std::sync::Arc::new(Int64Array::new(values, truths.nulls().cloned()))
}
