//! BIT_AND, BIT_OR and BIT_XOR: never NULL, neutral over no rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::Result;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::one_group::{Grouped, OneGroup};
use super::{Aggregate, AggregateCall};
use crate::func::registry;
use crate::types::{Datum, FieldType};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    And,
    Or,
    Xor,
}

impl Op {
    fn neutral(self) -> u64 {
        if self == Op::And { u64::MAX } else { 0 }
    }

    fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Op::And => a & b,
            Op::Or => a | b,
            Op::Xor => a ^ b,
        }
    }
}

/// Builds one of the three.
pub fn resolve(call: AggregateCall) -> Aggregate {
    let op = match call.name.to_ascii_lowercase().as_str() {
        "bit_and" => Op::And,
        "bit_or" => Op::Or,
        _ => Op::Xor,
    };
    let signature = Signature::variadic_any(Volatility::Immutable);
    let udaf = Arc::new(AggregateUDF::from(BitsUdaf { op, signature }));
    let args = call.args.into_iter().map(registry::to_int).collect();
    let field_type = FieldType::bigint_unsigned().with_not_null(true);
    Aggregate { udaf, args, distinct: false, field_type, empty: Datum::UInt(op.neutral()) }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BitsUdaf {
    op: Op,
    signature: Signature,
}

impl AggregateUDFImpl for BitsUdaf {
    fn name(&self) -> &str {
        match self.op {
            Op::And => "bit_and",
            Op::Or => "bit_or",
            Op::Xor => "bit_xor",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[bits]", args.name), DataType::UInt64, true))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Bits { op: self.op, groups: Vec::new() })))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Bits { op: self.op, groups: Vec::new() }))
    }
}

#[derive(Debug, Clone)]
struct Bits {
    op: Op,
    groups: Vec<u64>,
}

impl GroupsAccumulator for Bits {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.groups.resize(total_groups.max(self.groups.len()), self.op.neutral());
        let Some(array) = values.first() else { return Ok(()) };
        let unsigned = array.as_any().downcast_ref::<UInt64Array>();
        let signed = array.as_any().downcast_ref::<Int64Array>();
        for (row, group) in groups.iter().enumerate() {
            if array.is_null(row) || filter.is_some_and(|f| f.is_null(row) || !f.value(row)) {
                continue;
            }
            let value = unsigned.map(|a| a.value(row)).or_else(|| signed.map(|a| a.value(row) as u64));
            if let Some(value) = value {
                self.groups[*group] = self.op.apply(self.groups[*group], value);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(UInt64Array::from(emit.take_needed(&mut self.groups))))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut each = Bits { op: self.op, groups: Vec::new() };
        let groups: Vec<usize> = (0..values[0].len()).collect();
        each.update_batch(values, &groups, filter, groups.len())?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.groups.capacity() * 8
    }
}

impl Grouped for Bits {
    fn retract(&mut self, values: &[ArrayRef]) -> Result<()> {
        // Only XOR undoes itself.
        self.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn can_retract(&self) -> bool {
        self.op == Op::Xor
    }
}
