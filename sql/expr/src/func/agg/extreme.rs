//! MIN and MAX of strings whose collation does not order bytes.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::Result;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::one_group::{Grouped, OneGroup};
use crate::array::array_of;
use crate::func::compare::Bytes;
use crate::types::{Datum, FieldType};

/// MAX or MIN of a string type.
pub fn udaf(is_max: bool, field_type: &FieldType) -> Arc<AggregateUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(AggregateUDF::from(ExtremeUdaf { is_max, field_type: field_type.clone(), signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExtremeUdaf {
    is_max: bool,
    field_type: FieldType,
    signature: Signature,
}

impl ExtremeUdaf {
    fn state(&self) -> Extremes {
        Extremes { is_max: self.is_max, field_type: self.field_type.clone(), best: Vec::new() }
    }
}

impl AggregateUDFImpl for ExtremeUdaf {
    fn name(&self) -> &str {
        if self.is_max { "max" } else { "min" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field_type.arrow())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[best]", args.name), self.field_type.arrow(), true))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(self.state())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.state()))
    }
}

/// The best text of every group.
#[derive(Debug, Clone)]
struct Extremes {
    is_max: bool,
    field_type: FieldType,
    best: Vec<Option<Vec<u8>>>,
}

impl Extremes {
    fn add(&mut self, group: usize, text: &[u8]) {
        let wanted = if self.is_max { Ordering::Greater } else { Ordering::Less };
        let best = &mut self.best[group];
        let better = best.as_ref().is_none_or(|best| self.field_type.collation.compare(text, best) == wanted);
        if better {
            *best = Some(text.to_vec());
        }
    }

    fn take(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let best = emit.take_needed(&mut self.best);
        let values: Vec<Datum> = best.into_iter().map(Datum::from).collect();
        Ok(array_of(&self.field_type, &values)?)
    }
}

impl GroupsAccumulator for Extremes {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.best.resize(total_groups.max(self.best.len()), None);
        let Some(array) = values.first() else { return Ok(()) };
        let Some(texts) = Bytes::of(array) else { return Ok(()) };
        for (row, group) in groups.iter().enumerate() {
            if array.is_valid(row) && filter.is_none_or(|f| f.is_valid(row) && f.value(row)) {
                self.add(*group, texts.get(row));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        self.take(emit)
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.take(emit)?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.update_batch(values, groups, None, total_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut each = Extremes { best: Vec::new(), ..self.clone() };
        let groups: Vec<usize> = (0..values[0].len()).collect();
        each.update_batch(values, &groups, filter, groups.len())?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.best.iter().map(|b| b.as_ref().map_or(0, Vec::capacity) + 24).sum()
    }
}

impl Grouped for Extremes {
    fn retract(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(crate::Error::NotSupported { what: "MIN or MAX of strings over a sliding window".into() }.into())
    }

    fn can_retract(&self) -> bool {
        false
    }
}
