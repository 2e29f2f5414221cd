//! What names mean at one place of a query: the columns of its FROM clause, and around it those of the outer queries.

use std::rc::Rc;

use crate::error::{Error, Result};
use crate::parser::ast::ColumnName;
use crate::plan::OutputColumn;

/// Where in a statement a name stands; MySQL's errors say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clause {
    FieldList,
    Where,
    On,
    GroupBy,
    Having,
    OrderBy,
    /// LIMIT, DEFAULT expressions, SET of a variable: no columns at all.
    Values,
}

impl Clause {
    /// As in `Unknown column 'x' in 'where clause'`.
    pub fn name(self) -> &'static str {
        match self {
            Clause::FieldList | Clause::Values => "field list",
            Clause::Where => "where clause",
            Clause::On => "on clause",
            Clause::GroupBy => "group statement",
            Clause::Having => "having clause",
            Clause::OrderBy => "order clause",
        }
    }
}

/// A column in scope.
#[derive(Debug, Clone)]
pub struct ScopeColumn {
    pub column: OutputColumn,
    /// `*` and `t.*` include it (an invisible column is named only).
    pub visible: bool,
    /// `*` skips it: USING or NATURAL has merged it with its namesake of the other side.
    pub merged_away: bool,
}

/// The columns of one FROM clause, in the order of `*`.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub columns: Vec<ScopeColumn>,
    /// Database (empty for derived tables) and alias of each table.
    pub tables: Vec<(String, String)>,
}

/// Scopes from the innermost query outwards.
#[derive(Debug, Clone, Default)]
pub struct ScopeChain {
    pub scope: Rc<Scope>,
    pub outer: Option<Rc<ScopeChain>>,
}

impl Scope {
    /// Adds a table's columns.
    pub fn add_table(
        &mut self,
        db: &str,
        alias: &str,
        columns: impl IntoIterator<Item = (OutputColumn, bool)>,
    ) -> Result<()> {
        self.check_unique(db, alias)?;
        self.tables.push((db.to_owned(), alias.to_owned()));
        self.columns.extend(columns.into_iter().map(|(column, visible)| ScopeColumn {
            column,
            visible,
            merged_away: false,
        }));
        Ok(())
    }

    /// The scope of a join: the left columns, then the right ones.
    pub fn concat(mut self, right: Scope) -> Result<Scope> {
        for (db, alias) in &right.tables {
            self.check_unique(db, alias)?;
        }
        self.columns.extend(right.columns);
        self.tables.extend(right.tables);
        Ok(self)
    }

    fn check_unique(&self, db: &str, alias: &str) -> Result<()> {
        let taken =
            self.tables.iter().any(|(d, a)| same(a, alias) && (d.is_empty() || db.is_empty() || same(d, db)));
        if taken { Err(Error::NonUniqTable { table: alias.to_owned() }) } else { Ok(()) }
    }

    /// The column a name stands for here; `None` when there is none.
    pub fn find(&self, name: &ColumnName, clause: Clause) -> Result<Option<&OutputColumn>> {
        let mut found: Option<&ScopeColumn> = None;
        for candidate in &self.columns {
            if !matches(candidate, name) || (name.table.is_none() && candidate.merged_away) {
                continue;
            }
            if found.is_some() {
                return Err(Error::AmbiguousColumn {
                    column: name.to_string(),
                    clause: clause.name().to_owned(),
                });
            }
            found = Some(candidate);
        }
        Ok(found.map(|candidate| &candidate.column))
    }

    /// Whether a table with this name is here, as `t` or `db.t`.
    pub fn has_table(&self, schema: Option<&str>, table: &str) -> bool {
        self.tables
            .iter()
            .any(|(db, alias)| same(alias, table) && schema.is_none_or(|schema| same(db, schema)))
    }
}

impl ScopeChain {
    /// Looks a name up here, then outwards.
    pub fn resolve(&self, name: &ColumnName, clause: Clause) -> Result<&OutputColumn> {
        let mut chain = Some(self);
        while let Some(level) = chain {
            if let Some(column) = level.scope.find(name, clause)? {
                return Ok(column);
            }
            chain = level.outer.as_deref();
        }
        Err(Error::bad_field(name.to_string(), clause.name()))
    }
}

fn matches(candidate: &ScopeColumn, name: &ColumnName) -> bool {
    let column = &candidate.column;
    same(&column.name, &name.name)
        && name.table.as_ref().is_none_or(|table| same(&column.table, table))
        && name.schema.as_ref().is_none_or(|schema| same(&column.db, schema))
}

/// Whether two names are the same without regard to case.
pub fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || ((!a.is_ascii() || !b.is_ascii()) && a.to_lowercase() == b.to_lowercase())
}

#[cfg(test)]
mod tests {
    use rutile_expr::types::FieldType;

    use super::*;

    fn scope(db: &str, alias: &str, names: &[&str], first_id: usize) -> Scope {
        let mut scope = Scope::default();
        let columns = names.iter().enumerate().map(|(i, name)| {
            let mut column = OutputColumn::computed(first_id + i, *name, FieldType::bigint());
            column.table = alias.to_owned();
            column.db = db.to_owned();
            (column, true)
        });
        scope.add_table(db, alias, columns).expect("the first table");
        scope
    }

    fn name(text: &str) -> ColumnName {
        let parts: Vec<&str> = text.split('.').collect();
        let (schema, table, name) = match parts[..] {
            [name] => (None, None, name),
            [table, name] => (None, Some(table), name),
            [schema, table, name] => (Some(schema), Some(table), name),
            _ => panic!("{text}"),
        };
        ColumnName { schema: schema.map(Into::into), table: table.map(Into::into), name: name.into() }
    }

    #[test]
    fn names_are_found_by_any_qualification_and_case() {
        let both =
            scope("d", "t", &["a", "b"], 0).concat(scope("d", "u", &["b", "c"], 2)).expect("two tables");
        let id = |text: &str| both.find(&name(text), Clause::Where).map(|c| c.map(|c| c.id));
        assert_eq!(id("A"), Ok(Some(0)));
        assert_eq!(id("u.b"), Ok(Some(2)));
        assert_eq!(id("d.T.B"), Ok(Some(1)));
        assert_eq!(id("x.t.b"), Ok(None));
        assert_eq!(
            id("b"),
            Err(Error::AmbiguousColumn { column: "b".into(), clause: "where clause".into() })
        );
    }

    #[test]
    fn an_alias_is_unique_within_its_database() {
        let again = scope("d", "t", &["a"], 0).concat(scope("d", "T", &["a"], 1));
        assert_eq!(again.err(), Some(Error::NonUniqTable { table: "T".into() }));
        assert!(scope("d", "t", &["a"], 0).concat(scope("e", "t", &["a"], 1)).is_ok());
    }

    #[test]
    fn inner_names_hide_outer_ones() {
        let outer = Rc::new(ScopeChain { scope: Rc::new(scope("d", "t", &["a", "b"], 0)), outer: None });
        let chain = ScopeChain { scope: Rc::new(scope("d", "u", &["b"], 2)), outer: Some(outer) };
        assert_eq!(chain.resolve(&name("b"), Clause::Where).map(|c| c.id), Ok(2));
        assert_eq!(chain.resolve(&name("a"), Clause::Where).map(|c| c.id), Ok(0));
        assert_eq!(
            chain.resolve(&name("t.z"), Clause::Having).map(|c| c.id),
            Err(Error::bad_field("t.z", "having clause"))
        );
    }
}
