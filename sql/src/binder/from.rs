//! FROM: tables, derived tables, common table expressions and joins.

use std::rc::Rc;
use std::sync::Arc;

use rutile_expr::Expr;

use super::scope::{Clause, Scope, ScopeChain, same};
use super::{Binder, ExprScope};
use crate::catalog::model::{ColumnDefault, HandleKind, TableInfo, TableKind};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::logical::{IndexHint, IndexHintKind, Join, JoinKind, LogicalPlan, ROWID_OFFSET, Scan};
use crate::plan::schema::{KeyFlags, OutputColumn, Schema};

/// A FROM clause bound: what computes its rows, and the names it puts in scope.
pub(super) struct From {
    pub plan: LogicalPlan,
    pub scope: Scope,
}

impl Binder<'_> {
    /// Binds a list of table references: a cross join of them all.
    pub(super) fn bind_from(
        &mut self,
        refs: &[ast::TableRef],
        outer: Option<&Rc<ScopeChain>>,
    ) -> Result<From> {
        let mut joined: Option<From> = None;
        for table_ref in refs {
            let right = self.bind_table_ref(table_ref, outer)?;
            joined = Some(match joined {
                None => right,
                Some(left) => join(left, right, JoinKind::Inner, Vec::new(), false)?,
            });
        }
        Ok(joined.unwrap_or_else(|| From { plan: LogicalPlan::dual(), scope: Scope::default() }))
    }

    fn bind_table_ref(&mut self, table_ref: &ast::TableRef, outer: Option<&Rc<ScopeChain>>) -> Result<From> {
        match table_ref {
            ast::TableRef::Table(factor) => self.bind_table(factor, outer),
            ast::TableRef::Derived { lateral: true, .. } => Err(Error::not_supported("LATERAL")),
            ast::TableRef::Derived { query, alias, columns, .. } => {
                let plan = self.bind_query(query, None)?;
                derived(plan, alias, columns)
            }
            ast::TableRef::Join(join) => self.bind_join(join, outer),
            ast::TableRef::List(refs) => self.bind_from(refs, outer),
        }
    }

    fn bind_table(&mut self, factor: &ast::TableFactor, outer: Option<&Rc<ScopeChain>>) -> Result<From> {
        let alias = factor.alias.as_deref().unwrap_or(&factor.name.name);
        if factor.name.schema.is_none()
            && let Some(cte) = self.find_cte(&factor.name.name)
        {
            let plan = self.bind_cte(&cte)?;
            return derived(plan, alias, &cte.columns);
        }
        let _ = outer;
        let (db, table) = self.resolve_table(&factor.name)?;
        if !factor.partitions.is_empty() {
            return Err(Error::not_supported("partitions"));
        }
        let mut scan = match self.scans_for_write {
            true => self.scan_for_write(&db, &table, alias),
            false => self.scan_table(&db, &table, alias),
        };
        self.note_keys(&scan);
        scan.hints = index_hints(factor, &table)?;
        let mut scope = Scope::default();
        let visible = table.public_columns().map(|(_, column)| !column.invisible);
        scope.add_table(&db, alias, scan.schema.columns.iter().cloned().zip(visible))?;
        Ok(From { plan: LogicalPlan::Scan(scan), scope })
    }

    /// The database's name and the table behind a name; errors 1046, 1049 and 1146.
    pub(super) fn resolve_table(&self, name: &ast::ObjectName) -> Result<(String, Arc<TableInfo>)> {
        let db = match &name.schema {
            Some(schema) => schema.as_str(),
            None => self.ctx.statement.current_database()?,
        };
        let infoschema = &self.ctx.statement.schema;
        let entry = infoschema.database(db).ok_or_else(|| match name.schema {
            Some(_) => Error::BadDb { db: db.to_owned() },
            None => Error::NoSuchTable { db: db.to_owned(), table: name.name.clone() },
        })?;
        let table = infoschema
            .table(db, &name.name)
            .ok_or_else(|| Error::NoSuchTable { db: db.to_owned(), table: name.name.clone() })?;
        self.tables.borrow_mut().push(Arc::clone(table));
        Ok((entry.info.name.clone(), Arc::clone(table)))
    }

    /// A scan of all public columns.
    pub(super) fn scan_table(&mut self, db: &str, table: &Arc<TableInfo>, alias: &str) -> Scan {
        let offsets: Vec<usize> = table.public_columns().map(|(offset, _)| offset).collect();
        let columns = offsets.iter().map(|&offset| self.table_column(db, table, alias, offset)).collect();
        Scan {
            db: db.to_owned(),
            alias: alias.to_owned(),
            table: Arc::clone(table),
            offsets,
            schema: Schema::new(columns),
            filters: Vec::new(),
            lock: None,
            is_virtual: table.kind == TableKind::System,
            hints: Vec::new(),
            limit: None,
            join_method: None,
            stats: self.ctx.statement.statistics.of(table),
        }
    }

    /// A scan that also outputs non-public columns and the hidden row id: what UPDATE and DELETE read.
    pub(super) fn scan_for_write(&mut self, db: &str, table: &Arc<TableInfo>, alias: &str) -> Scan {
        let mut scan = self.scan_table(db, table, alias);
        let mut columns = scan.schema.columns.clone();
        for offset in columns.len()..table.columns.len() {
            scan.offsets.push(offset);
            columns.push(self.table_column(db, table, alias, offset));
        }
        if table.handle == HandleKind::Hidden {
            scan.offsets.push(ROWID_OFFSET);
            let ty = rutile_expr::types::FieldType::bigint();
            columns.push(OutputColumn::computed(self.new_id(), "", ty));
        }
        scan.schema = Schema::new(columns);
        scan
    }

    /// Remembers the unique keys of a scan, for functional dependencies.
    fn note_keys(&mut self, scan: &Scan) {
        let column = |offset: usize| {
            let place = scan.offsets.iter().position(|o| *o == offset)?;
            Some(scan.schema.columns[place].id)
        };
        let table = &scan.table;
        let unique = table.indexes.iter().filter(|index| index.unique && index.state.is_public());
        let whole = unique.filter(|index| {
            let mut columns = index.columns.iter();
            columns.all(|c| c.prefix.is_none() && table.columns[c.offset].ty.not_null)
        });
        let keys =
            whole.filter_map(|index| index.columns.iter().map(|c| column(c.offset)).collect()).collect();
        self.keys.push(super::aggregate::TableKeys { keys, all: scan.schema.ids().collect() });
    }

    fn table_column(&mut self, db: &str, table: &TableInfo, alias: &str, offset: usize) -> OutputColumn {
        let column = &table.columns[offset];
        OutputColumn {
            id: self.new_id(),
            name: column.name.clone(),
            table: alias.to_owned(),
            db: db.to_owned(),
            org_table: table.name.clone(),
            org_name: column.name.clone(),
            ty: column.ty.clone(),
            key: key_flags(table, offset),
        }
    }

    fn bind_join(&mut self, node: &ast::Join, outer: Option<&Rc<ScopeChain>>) -> Result<From> {
        let left = self.bind_table_ref(&node.left, outer)?;
        let right = self.bind_table_ref(&node.right, outer)?;
        let (kind, straight) = match node.kind {
            ast::JoinKind::Inner => (JoinKind::Inner, false),
            ast::JoinKind::Straight => (JoinKind::Inner, true),
            ast::JoinKind::Left => (JoinKind::Left, false),
            ast::JoinKind::Right => (JoinKind::Right, false),
        };
        match &node.constraint {
            ast::JoinConstraint::None => join(left, right, kind, Vec::new(), straight),
            ast::JoinConstraint::On(condition) => {
                let scope = left.scope.clone().concat(right.scope.clone())?;
                let chain = Rc::new(ScopeChain { scope: Rc::new(scope), outer: outer.cloned() });
                let mut names = ExprScope::new(&chain, Clause::On);
                let mut filter = Vec::new();
                for part in super::expr::conjuncts(condition) {
                    filter.push(self.bind_condition(part, &mut names)?);
                }
                let applies = std::mem::take(&mut names.applies);
                self.join_with_subqueries(left, right, kind, filter, straight, applies)
            }
            ast::JoinConstraint::Using(columns) => self.join_using(left, right, kind, columns),
            ast::JoinConstraint::Natural => {
                let mut columns = Vec::new();
                for column in left.scope.columns.iter().filter(|c| c.visible && !c.merged_away) {
                    let name = &column.column.name;
                    let other = |c: &&super::scope::ScopeColumn| {
                        c.visible && !c.merged_away && same(&c.column.name, name)
                    };
                    if right.scope.columns.iter().any(|c| other(&c)) {
                        columns.push(name.clone());
                    }
                }
                self.join_using(left, right, kind, &columns)
            }
        }
    }

    /// A join whose condition has subqueries that depend on the row: on a side that has all they need.
    fn join_with_subqueries(
        &mut self,
        mut left: From,
        mut right: From,
        kind: JoinKind,
        filter: Vec<Expr>,
        straight: bool,
        applies: Vec<super::subquery::PendingApply>,
    ) -> Result<From> {
        let mut above = Vec::new();
        for apply in applies {
            let needed: Vec<usize> =
                crate::plan::exprs::free_columns(&apply.plan).iter().flat_map(Expr::columns).collect();
            let of = |from: &From| needed.iter().filter(|id| from.plan.schema().contains(**id)).count();
            match (of(&left), of(&right)) {
                (_, 0) => left.plan = self.apply(left.plan, apply)?,
                (0, _) => right.plan = self.apply(right.plan, apply)?,
                _ if kind == JoinKind::Inner => above.push(apply),
                _ => {
                    return Err(Error::not_supported(
                        "a subquery in ON of an outer join that needs both sides",
                    ));
                }
            }
        }
        let computed: Vec<usize> = above.iter().map(|apply| apply.output.id).collect();
        let (on, after): (Vec<_>, Vec<_>) =
            filter.into_iter().partition(|part| part.columns().iter().all(|id| !computed.contains(id)));
        let mut joined = join(left, right, kind, on, straight)?;
        for apply in above {
            joined.plan = self.apply(joined.plan, apply)?;
        }
        joined.plan = super::filtered(joined.plan, after);
        Ok(joined)
    }

    /// Equal values of the named columns on both sides, which `*` shows once and first.
    fn join_using(&mut self, left: From, right: From, kind: JoinKind, names: &[String]) -> Result<From> {
        let mut filter = Vec::new();
        let mut merged = Vec::new();
        for name in names {
            let bare = ast::ColumnName::bare(name.clone());
            let missing = || Error::bad_field(name.clone(), "from clause");
            let find = |scope: &Scope| match scope.find(&bare, Clause::On) {
                Err(Error::AmbiguousColumn { column, .. }) => {
                    Err(Error::AmbiguousColumn { column, clause: "from clause".to_owned() })
                }
                other => other?.cloned().ok_or_else(missing),
            };
            let (l, r) = (find(&left.scope)?, find(&right.scope)?);
            filter.push(self.call("=", vec![super::column_expr(&l), super::column_expr(&r)])?);
            merged.push((l.id, r.id));
        }
        let From { plan, mut scope } = join(left, right, kind, filter, false)?;
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for &(l, r) in &merged {
            let kept = if kind == JoinKind::Right { r } else { l };
            first.extend(scope.columns.iter().filter(|c| c.column.id == kept).cloned());
        }
        for mut column in scope.columns {
            let id = column.column.id;
            if first.iter().any(|c| c.column.id == id) {
                continue;
            }
            column.merged_away |= merged.iter().any(|&(l, r)| l == id || r == id);
            rest.push(column);
        }
        first.append(&mut rest);
        scope.columns = first;
        Ok(From { plan, scope })
    }
}

/// A query as a table: new names over the same columns.
fn derived(plan: LogicalPlan, alias: &str, names: &[String]) -> Result<From> {
    let schema = plan.schema();
    if !names.is_empty() && names.len() != schema.len() {
        return Err(Error::Mysql {
            code: 1353,
            state: "HY000",
            message: "In definition of view, derived table or common table expression, SELECT list and column names list \
                      have different column counts"
                .to_owned(),
        });
    }
    let mut columns: Vec<OutputColumn> = Vec::with_capacity(schema.len());
    for (i, column) in schema.columns.iter().enumerate() {
        let name = names.get(i).unwrap_or(&column.name).clone();
        if columns.iter().any(|c| same(&c.name, &name)) {
            return Err(Error::DupFieldName { column: name });
        }
        columns.push(OutputColumn { name, table: alias.to_owned(), db: String::new(), ..column.clone() });
    }
    let mut scope = Scope::default();
    scope.add_table("", alias, columns.into_iter().map(|column| (column, true)))?;
    Ok(From { plan, scope })
}

/// Joins two bound sides; the columns of an outer join's inner side become nullable.
fn join(left: From, right: From, kind: JoinKind, filter: Vec<Expr>, straight: bool) -> Result<From> {
    let mut columns = left.plan.schema().columns.clone();
    let split = columns.len();
    columns.extend(right.plan.schema().columns.iter().cloned());
    let mut scope = left.scope;
    let scope_split = scope.columns.len();
    scope = scope.concat(right.scope)?;
    let (schema_part, scope_part) = match kind {
        JoinKind::Left => (split..columns.len(), scope_split..scope.columns.len()),
        JoinKind::Right => (0..split, 0..scope_split),
        _ => (0..0, 0..0),
    };
    columns[schema_part].iter_mut().for_each(|column| column.ty.not_null = false);
    scope.columns[scope_part].iter_mut().for_each(|column| column.column.ty.not_null = false);
    let plan = LogicalPlan::Join(Join {
        kind,
        left: Box::new(left.plan),
        right: Box::new(right.plan),
        filter,
        schema: Schema::new(columns),
        straight,
    });
    Ok(From { plan, scope })
}

fn index_hints(factor: &ast::TableFactor, table: &TableInfo) -> Result<Vec<IndexHint>> {
    let mut hints = Vec::new();
    for hint in &factor.index_hints {
        for name in &hint.indexes {
            if table.index(name).is_none() {
                return Err(Error::KeyDoesNotExist { key: name.clone(), table: table.name.clone() });
            }
        }
        let kind = match hint.kind {
            ast::IndexHintKind::Use => IndexHintKind::Use,
            ast::IndexHintKind::Force => IndexHintKind::Force,
            ast::IndexHintKind::Ignore => IndexHintKind::Ignore,
        };
        // A hint for ordering or grouping alone does not bind the choice of the access path.
        if matches!(hint.scope, ast::IndexHintScope::All | ast::IndexHintScope::Join) {
            hints.push(IndexHint { kind, indexes: hint.indexes.clone() });
        }
    }
    Ok(hints)
}

/// The protocol's key flags: MySQL calls a column unique or multiple only where it leads the index.
fn key_flags(table: &TableInfo, offset: usize) -> KeyFlags {
    let column = &table.columns[offset];
    let mut flags = KeyFlags {
        auto_increment: column.auto_increment,
        no_default: column.ty.not_null && column.default == ColumnDefault::None && !column.auto_increment,
        on_update_now: column.on_update_now,
        ..KeyFlags::default()
    };
    for index in table.indexes.iter().filter(|index| index.state.is_public()) {
        if index.primary {
            flags.primary |= index.columns.iter().any(|c| c.offset == offset);
        } else if index.columns.first().is_some_and(|c| c.offset == offset) {
            flags.unique |= index.unique && index.columns.len() == 1;
            flags.multiple |= !index.unique || index.columns.len() > 1;
        }
    }
    flags
}
