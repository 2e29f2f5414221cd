//! What a plan node outputs: its columns with their names as the client sees them and their types.

use std::sync::{Arc, OnceLock};

use rutile_expr::types::FieldType;

/// A column's identity within one statement. In a logical plan `Expr::Column` holds this id, whatever node computes it; the
/// optimizer's last step replaces it by the position in the input batch.
pub type ColumnId = usize;

/// One column of a node's output.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    pub id: ColumnId,
    /// The title: an alias, the column's name, or the text of the expression.
    pub name: String,
    /// The table's alias, empty for computed columns.
    pub table: String,
    pub db: String,
    /// The table and column below any alias; empty for computed columns.
    pub org_table: String,
    pub org_name: String,
    pub ty: FieldType,
    pub key: KeyFlags,
}

/// What the protocol's column definition says about keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyFlags {
    pub primary: bool,
    pub unique: bool,
    pub multiple: bool,
    pub auto_increment: bool,
    /// No default value although NOT NULL.
    pub no_default: bool,
    pub on_update_now: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Schema {
    pub columns: Vec<OutputColumn>,
    /// Made when first asked for.
    arrow: OnceLock<arrow::datatypes::SchemaRef>,
}

pub type SchemaRef = Arc<Schema>;

impl OutputColumn {
    /// A computed column without a table.
    pub fn computed(id: ColumnId, name: impl Into<String>, ty: FieldType) -> Self {
        OutputColumn {
            id,
            name: name.into(),
            table: String::new(),
            db: String::new(),
            org_table: String::new(),
            org_name: String::new(),
            ty,
            key: KeyFlags::default(),
        }
    }
}

impl Schema {
    pub fn new(columns: Vec<OutputColumn>) -> SchemaRef {
        Arc::new(Schema { columns, arrow: OnceLock::new() })
    }

    pub fn empty() -> SchemaRef {
        Arc::new(Schema::default())
    }

    /// The schema of this node's batches. Every field is nullable: outer joins make NULLs of what was declared NOT NULL.
    pub fn arrow(&self) -> arrow::datatypes::SchemaRef {
        let make = || {
            let fields =
                self.columns.iter().map(|c| arrow::datatypes::Field::new(&c.name, c.ty.arrow(), true));
            Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
        };
        Arc::clone(self.arrow.get_or_init(make))
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Where the column with this id stands in a batch.
    pub fn position(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    pub fn contains(&self, id: ColumnId) -> bool {
        self.position(id).is_some()
    }

    pub fn ids(&self) -> impl Iterator<Item = ColumnId> + '_ {
        self.columns.iter().map(|column| column.id)
    }
}
