//! What an account may touch: checked against the databases a plan or a schema change names. Accounts with ALL on
//! everything skip it.

use super::Session;
use crate::parser::ast::{ObjectName, ShowWhat, Statement};
use crate::plan::{InsertSource, PhysicalNode, PhysicalPlan, Plan, PlanBody};
use crate::{Error, Result};

impl Session {
    /// Refuses a plan that touches a database the account has no privileges on.
    pub(super) fn check_plan(&self, plan: &Plan) -> Result<()> {
        let account = self.state.account.read();
        if account.is_super() {
            return Ok(());
        }
        let mut touched = Vec::new();
        plan.subqueries.iter().for_each(|subquery| tables_of(&subquery.plan, &mut touched));
        tables_of_body(&plan.body, &mut touched);
        match touched.iter().find(|(_, db, _)| !account.may_use(db)) {
            None => Ok(()),
            Some((privilege, _, table)) => Err(Error::TableAccessDenied {
                privilege: (*privilege).to_owned(),
                user: account.user.clone(),
                host: account.host.clone(),
                table: (*table).to_owned(),
            }),
        }
    }

    /// Refuses a schema change or SHOW in a database the account has no privileges on.
    pub(super) fn check_statement(&self, statement: &Statement) -> Result<()> {
        let account = self.state.account.read();
        if account.is_super() {
            return Ok(());
        }
        let current = self.database().unwrap_or_default();
        let denied = databases_of(statement, current).into_iter().find(|db| !account.may_use(db));
        match denied {
            None => Ok(()),
            Some(db) => {
                Err(Error::DbAccessDenied { user: account.user.clone(), host: account.host.clone(), db })
            }
        }
    }
}

type Touched<'a> = Vec<(&'static str, &'a str, &'a str)>;

fn tables_of_body<'a>(body: &'a PlanBody, touched: &mut Touched<'a>) {
    match body {
        PlanBody::Query(plan) => tables_of(plan, touched),
        PlanBody::Explain(explain) => tables_of_body(&explain.target.body, touched),
        PlanBody::Insert(insert) => {
            touched.push(("INSERT", &insert.db, &insert.table.name));
            if let InsertSource::Query(plan) = &insert.source {
                tables_of(plan, touched);
            }
        }
        PlanBody::Update(update) => {
            touched.extend(update.targets.iter().map(|t| ("UPDATE", t.db.as_str(), t.table.name.as_str())));
            tables_of(&update.reader, touched);
        }
        PlanBody::Delete(delete) => {
            touched.extend(delete.targets.iter().map(|t| ("DELETE", t.db.as_str(), t.table.name.as_str())));
            tables_of(&delete.reader, touched);
        }
    }
}

fn tables_of<'a>(plan: &'a PhysicalPlan, touched: &mut Touched<'a>) {
    let access = match &plan.node {
        PhysicalNode::PointGet(node) => Some(&node.access),
        PhysicalNode::BatchPointGet(node) => Some(&node.access),
        PhysicalNode::TableReader(node) => Some(&node.access),
        PhysicalNode::IndexReader(node) => Some(&node.access),
        PhysicalNode::IndexLookup(node) => Some(&node.access),
        _ => None,
    };
    touched.extend(access.map(|access| ("SELECT", access.db.as_str(), access.table.name.as_str())));
    plan.inputs().into_iter().for_each(|input| tables_of(input, touched));
}

fn databases_of(statement: &Statement, current: &str) -> Vec<String> {
    let of = |name: &ObjectName| name.schema.clone().unwrap_or_else(|| current.to_owned());
    match statement {
        Statement::CreateDatabase(create) => vec![create.name.clone()],
        Statement::DropDatabase(drop) => vec![drop.name.clone()],
        Statement::AlterDatabase(alter) => vec![alter.name.clone().unwrap_or_else(|| current.to_owned())],
        Statement::CreateTable(create) => {
            std::iter::once(of(&create.name)).chain(create.like.as_ref().map(of)).collect()
        }
        Statement::AlterTable(alter) => vec![of(&alter.table)],
        Statement::DropTable(drop) | Statement::DropView(drop) => drop.names.iter().map(of).collect(),
        Statement::RenameTable(pairs) => pairs.iter().flat_map(|(from, to)| [of(from), of(to)]).collect(),
        Statement::TruncateTable(name) => vec![of(name)],
        Statement::CreateIndex(create) => vec![of(&create.table)],
        Statement::DropIndex(drop) => vec![of(&drop.table)],
        Statement::CreateView(create) => vec![of(&create.name)],
        Statement::LoadData(load) => vec![of(&load.table)],
        Statement::Describe { table, .. } => vec![of(table)],
        Statement::Analyze(analyze) => analyze.tables.iter().map(of).collect(),
        Statement::Show(show) => match &show.what {
            ShowWhat::Columns { table, .. }
            | ShowWhat::Index { table, .. }
            | ShowWhat::CreateTable(table) => {
                vec![of(table)]
            }
            ShowWhat::Tables { schema, .. } | ShowWhat::TableStatus { schema } => {
                vec![schema.clone().unwrap_or_else(|| current.to_owned())]
            }
            ShowWhat::CreateDatabase { name, .. } => vec![name.clone()],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}
