//! SUM and AVG: exact over exact numbers, DOUBLE over the rest.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    UInt64Array,
};
use arrow::datatypes::{DataType, Decimal256Type, Field, FieldRef, Float64Type, Int64Type};
use datafusion_common::Result as DfResult;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use ethnum::I256;

use super::one_group::{Grouped, OneGroup};
use super::{Aggregate, AggregateCall, collected, exact_precision};
use crate::array::{ColumnBuilder, from_arrow_i256, to_arrow_i256};
use crate::context::EvalContext;
use crate::error::Error;
use crate::expr::Expr;
use crate::func::registry;
use crate::types::field_type::Family;
use crate::types::{Datum, Decimal, FieldType};

/// Digits of the sum that travels between partial and final aggregation.
const STATE_PRECISION: u8 = 76;

/// Builds SUM or AVG.
pub fn resolve(ctx: &EvalContext, call: AggregateCall) -> Aggregate {
    let is_avg = call.name.eq_ignore_ascii_case("avg");
    let arg = call.args.into_iter().next().map_or_else(Expr::null, registry::to_number);
    let from = arg.field_type().clone();
    let field_type = if from.family() == Family::Double {
        FieldType::double()
    } else {
        let (precision, scale) = (exact_precision(&arg), from.decimal_scale());
        if is_avg {
            let increment = ctx.div_precision_increment;
            FieldType::decimal(precision + u32::from(increment), scale.saturating_add(increment))
        } else {
            FieldType::decimal(precision + 22, scale)
        }
    };
    let inner = SumUdaf {
        is_avg,
        distinct: call.distinct,
        from,
        to: field_type.clone(),
        signature: Signature::variadic_any(Volatility::Immutable),
    };
    let udaf = Arc::new(AggregateUDF::from(inner));
    Aggregate { udaf, args: vec![arg], distinct: false, field_type, empty: Datum::Null }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SumUdaf {
    is_avg: bool,
    distinct: bool,
    from: FieldType,
    to: FieldType,
    signature: Signature,
}

impl SumUdaf {
    fn sums(&self) -> Sums {
        Sums {
            is_avg: self.is_avg,
            scale: self.from.decimal_scale(),
            to: self.to.clone(),
            counts: Vec::new(),
            totals: match self.from.family() {
                Family::Double => Totals::Double(Vec::new()),
                // 128 bits take 10^10 values of 28 digits.
                _ if self.from.decimal_precision() <= 28 => Totals::Small(Vec::new()),
                _ => Totals::Large(Vec::new()),
            },
        }
    }
}

impl AggregateUDFImpl for SumUdaf {
    fn name(&self) -> &str {
        if self.is_avg { "avg" } else { "sum" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.arrow())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> DfResult<Vec<FieldRef>> {
        if self.distinct {
            return Ok(collected::state_fields(args.name));
        }
        let sum = match self.from.family() {
            Family::Double => DataType::Float64,
            _ => DataType::Decimal256(STATE_PRECISION, self.from.decimal_scale() as i8),
        };
        Ok(vec![
            Arc::new(Field::new(format!("{}[sum]", args.name), sum, true)),
            Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        let sums = self.sums();
        if self.distinct {
            return Ok(Box::new(collected::Distinct::new(self.from.clone(), OneGroup(sums))));
        }
        Ok(Box::new(OneGroup(sums)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        !self.distinct
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> DfResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.sums()))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> DfResult<Box<dyn Accumulator>> {
        self.accumulator(args)
    }
}

#[derive(Debug, Clone)]
enum Totals {
    Double(Vec<f64>),
    Small(Vec<i128>),
    Large(Vec<I256>),
}

/// Sums and counts of every group.
#[derive(Debug, Clone)]
struct Sums {
    is_avg: bool,
    scale: u8,
    to: FieldType,
    counts: Vec<i64>,
    totals: Totals,
}

fn overflow(name: &str) -> datafusion_common::DataFusionError {
    Error::DataOutOfRange { kind: "DECIMAL", expr: format!("{name}()") }.into()
}

/// Calls `add` for each row that counts.
fn each_row(
    array: &dyn Array,
    groups: &[usize],
    filter: Option<&BooleanArray>,
    mut add: impl FnMut(usize, usize) -> DfResult<()>,
) -> DfResult<()> {
    let plain = array.null_count() == 0 && filter.is_none();
    for (row, group) in groups.iter().enumerate() {
        let counts = plain || (array.is_valid(row) && filter.is_none_or(|f| f.is_valid(row) && f.value(row)));
        if counts {
            add(row, *group)?;
        }
    }
    Ok(())
}

impl Sums {
    fn name(&self) -> &'static str {
        if self.is_avg { "avg" } else { "sum" }
    }

    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups.max(self.counts.len()), 0);
        let len = self.counts.len();
        match &mut self.totals {
            Totals::Double(v) => v.resize(len, 0.0),
            Totals::Small(v) => v.resize(len, 0),
            Totals::Large(v) => v.resize(len, I256::ZERO),
        }
    }

    fn add_exact(&mut self, group: usize, value: I256, sign: i8) -> DfResult<()> {
        let name = self.name();
        let value = if sign < 0 { -value } else { value };
        match &mut self.totals {
            Totals::Small(totals) => {
                let value = i128::try_from(value).map_err(|_| overflow(name))?;
                totals[group] = totals[group].checked_add(value).ok_or_else(|| overflow(name))?;
            }
            Totals::Large(totals) => {
                totals[group] = totals[group].checked_add(value).ok_or_else(|| overflow(name))?;
            }
            Totals::Double(totals) => totals[group] += value.as_f64(),
        }
        self.counts[group] += i64::from(sign);
        Ok(())
    }

    fn add_small(&mut self, group: usize, value: i128, sign: i8) -> DfResult<()> {
        if let Totals::Small(totals) = &mut self.totals {
            let value = if sign < 0 { -value } else { value };
            totals[group] = totals[group].checked_add(value).ok_or_else(|| overflow("sum"))?;
            self.counts[group] += i64::from(sign);
            return Ok(());
        }
        self.add_exact(group, I256::new(value), sign)
    }

    fn apply(
        &mut self,
        array: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        sign: i8,
    ) -> DfResult<()> {
        let any = array.as_any();
        if let Some(a) = any.downcast_ref::<Decimal128Array>() {
            each_row(a, groups, filter, |row, group| self.add_small(group, a.value(row), sign))
        } else if let Some(a) = any.downcast_ref::<Int64Array>() {
            each_row(a, groups, filter, |row, group| self.add_small(group, i128::from(a.value(row)), sign))
        } else if let Some(a) = any.downcast_ref::<UInt64Array>() {
            each_row(a, groups, filter, |row, group| self.add_small(group, i128::from(a.value(row)), sign))
        } else if let Some(a) = any.downcast_ref::<Decimal256Array>() {
            each_row(a, groups, filter, |row, group| {
                self.add_exact(group, from_arrow_i256(a.value(row)), sign)
            })
        } else if let Some(a) = any.downcast_ref::<Float64Array>() {
            each_row(a, groups, filter, |row, group| {
                if let Totals::Double(totals) = &mut self.totals {
                    totals[group] += f64::from(sign) * a.value(row);
                }
                self.counts[group] += i64::from(sign);
                Ok(())
            })
        } else {
            Ok(())
        }
    }

    /// Takes the first groups (or all) out.
    fn take(&mut self, emit: EmitTo) -> (Vec<i64>, Totals) {
        let counts = emit.take_needed(&mut self.counts);
        let totals = match &mut self.totals {
            Totals::Double(v) => Totals::Double(emit.take_needed(v)),
            Totals::Small(v) => Totals::Small(emit.take_needed(v)),
            Totals::Large(v) => Totals::Large(emit.take_needed(v)),
        };
        (counts, totals)
    }

    fn result(&self, total: I256, count: i64) -> DfResult<Datum> {
        let sum = Decimal::new(total, self.scale);
        if !self.is_avg {
            return Ok(Datum::Decimal(sum));
        }
        let average = sum.div(&Decimal::from(count), self.to.decimals);
        average.map(Datum::Decimal).ok_or_else(|| overflow("avg"))
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> DfResult<()> {
        self.resize(total_groups);
        match values.first() {
            Some(array) => self.apply(array, groups, filter, 1),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self, emit: EmitTo) -> DfResult<ArrayRef> {
        let (counts, totals) = self.take(emit);
        let mut builder = ColumnBuilder::new(&self.to, counts.len());
        for (group, count) in counts.iter().enumerate() {
            if *count == 0 {
                builder.push_null();
                continue;
            }
            let value = match &totals {
                Totals::Double(v) if self.is_avg => Datum::Double(v[group] / *count as f64),
                Totals::Double(v) => Datum::Double(v[group]),
                Totals::Small(v) => self.result(I256::new(v[group]), *count)?,
                Totals::Large(v) => self.result(v[group], *count)?,
            };
            builder.push(&value)?;
        }
        Ok(builder.finish())
    }

    fn state(&mut self, emit: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let (counts, totals) = self.take(emit);
        let exact = |values: Vec<arrow::datatypes::i256>| -> DfResult<ArrayRef> {
            let array = Decimal256Array::new(values.into(), None);
            Ok(Arc::new(array.with_precision_and_scale(STATE_PRECISION, self.scale as i8)?))
        };
        let sums: ArrayRef = match totals {
            Totals::Double(v) => Arc::new(Float64Array::from(v)),
            Totals::Small(v) => exact(v.into_iter().map(arrow::datatypes::i256::from_i128).collect())?,
            Totals::Large(v) => exact(v.into_iter().map(to_arrow_i256).collect())?,
        };
        Ok(vec![sums, Arc::new(Int64Array::from(counts))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> DfResult<()> {
        self.resize(total_groups);
        let counts = values[1].as_primitive::<Int64Type>();
        for (row, group) in groups.iter().enumerate() {
            let count = counts.value(row);
            if count == 0 || counts.is_null(row) {
                continue;
            }
            if let Totals::Double(totals) = &mut self.totals {
                totals[*group] += values[0].as_primitive::<Float64Type>().value(row);
                self.counts[*group] += count;
                continue;
            }
            let sum = values[0].as_primitive::<Decimal256Type>().value(row);
            self.add_exact(*group, from_arrow_i256(sum), 1)?;
            self.counts[*group] += count - 1;
        }
        Ok(())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> DfResult<Vec<ArrayRef>> {
        let mut each = self.clone();
        each.take(EmitTo::All);
        let rows = values[0].len();
        let groups: Vec<usize> = (0..rows).collect();
        each.update_batch(values, &groups, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let item = match &self.totals {
            Totals::Double(_) => 8,
            Totals::Small(_) => 16,
            Totals::Large(_) => 32,
        };
        self.counts.capacity() * (8 + item)
    }
}

impl Grouped for Sums {
    fn retract(&mut self, values: &[ArrayRef]) -> DfResult<()> {
        self.apply(&values[0], &vec![0; values[0].len()], None, -1)
    }

    fn can_retract(&self) -> bool {
        true
    }
}
