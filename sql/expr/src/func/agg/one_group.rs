//! A grouped accumulator used where there is one group only.

use arrow::array::{Array, ArrayRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// What a grouped accumulator of ours must do besides, so that it can serve as a plain one.
pub trait Grouped: GroupsAccumulator + Clone + std::fmt::Debug + Sync + 'static {
    /// Takes values out again, for sliding windows.
    fn retract(&mut self, values: &[ArrayRef]) -> Result<()>;

    /// Can it take values out?
    fn can_retract(&self) -> bool;
}

/// One group.
#[derive(Debug)]
pub struct OneGroup<G>(pub G);

fn zeros(values: &[ArrayRef]) -> Vec<usize> {
    vec![0; values.first().map_or(0, |v| v.len())]
}

impl<G: Grouped> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &zeros(values), None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &zeros(states), 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A window asks again after more rows: answer from a copy.
        let mut copy = self.0.clone();
        copy.update_batch(&[], &[], None, 1)?;
        ScalarValue::try_from_array(&copy.evaluate(EmitTo::All)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.update_batch(&[], &[], None, 1)?;
        self.0.state(EmitTo::All)?.iter().map(|array| ScalarValue::try_from_array(array, 0)).collect()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.can_retract()
    }

    fn size(&self) -> usize {
        self.0.size() + size_of::<Self>()
    }
}
