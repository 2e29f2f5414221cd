//! REPLACE: rows in the way are deleted first.

use super::insert::{Inserter, NewRow};
use crate::table::index;
use crate::{Error, Result};

/// Writes one row. Each row deleted counts, and the row inserted; an identical row counts once.
pub(super) async fn write(inserter: &mut Inserter<'_>, new: &NewRow) -> Result<()> {
    while let Some(conflict) = inserter.writer.conflict(&new.row, &new.handle)? {
        let generated = inserter
            .table()
            .auto_column()
            .is_some_and(|(offset, _)| new.generated.is_some() && conflict.index.columns[0].offset == offset);
        if generated {
            // No row gives way to a counter that is used up.
            return Err(index::duplicate(inserter.table(), conflict.index, &new.row));
        }
        let old = inserter.writer.row_of(&conflict.handle).await?;
        let old = old.ok_or_else(|| Error::internal("an index entry has no row"))?;
        inserter.writer.delete(&old, &conflict.handle)?;
        if old != new.row {
            inserter.counts.deleted += 1;
            inserter.add_affected(1);
        }
    }
    inserter.insert(new)
}
