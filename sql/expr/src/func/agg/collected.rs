//! Accumulators that must keep the values themselves: DISTINCT, and what is sorted at the end.

use std::sync::Arc;

use ahash::AHashSet;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::Accumulator;

use super::one_group::{Grouped, OneGroup};
use crate::array::{Reader, array_of};
use crate::index_key::{self, KeyPart};
use crate::types::{Datum, FieldType};

/// The state of such an accumulator: one binary string.
pub fn state_fields(name: &str) -> Vec<FieldRef> {
    vec![Arc::new(Field::new(format!("{name}[values]"), DataType::Binary, true))]
}

/// The binary strings of a state column.
pub fn state_bytes(states: &[ArrayRef]) -> Vec<&[u8]> {
    states[0].as_binary::<i32>().iter().flatten().collect()
}

/// Passes each value of a number type on once.
#[derive(Debug)]
pub struct Distinct<G> {
    field_type: FieldType,
    seen: AHashSet<Vec<u8>>,
    inner: OneGroup<G>,
}

impl<G: Grouped> Distinct<G> {
    pub fn new(field_type: FieldType, inner: OneGroup<G>) -> Distinct<G> {
        Distinct { field_type, seen: AHashSet::new(), inner }
    }

    fn add(&mut self, key: Vec<u8>, value: &Datum) -> Result<()> {
        if !self.seen.insert(key) {
            return Ok(());
        }
        let array = array_of(&self.field_type, [value])?;
        self.inner.update_batch(&[array])
    }
}

impl<G: Grouped> Accumulator for Distinct<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let field_type = self.field_type.clone();
        let reader = Reader::new(&values[0], &field_type);
        for row in 0..values[0].len() {
            let value = reader.get(row);
            if value.is_null() {
                continue;
            }
            let mut key = Vec::new();
            index_key::encode(&value, &KeyPart::new(&field_type), &mut key)?;
            self.add(key, &value)?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let field_type = self.field_type.clone();
        let part = KeyPart::new(&field_type);
        for mut bytes in state_bytes(states) {
            while !bytes.is_empty() {
                let start = bytes;
                let value = index_key::decode(&mut bytes, &part)?.unwrap_or_default();
                let key = start[..start.len() - bytes.len()].to_vec();
                self.add(key, &value)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let all: Vec<u8> = self.seen.iter().flatten().copied().collect();
        Ok(vec![ScalarValue::Binary(Some(all))])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.seen.iter().map(|k| k.capacity() + 48).sum::<usize>() + self.inner.size()
    }
}
