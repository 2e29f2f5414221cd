//! DELETE.

use super::Binder;
use super::update::{check_writable, scan_named};
use crate::error::{Error, Result};
use crate::parser::ast;
use crate::plan::dml::DeletePlan;
use crate::plan::logical::LogicalPlan;

impl Binder<'_> {
    pub(super) fn bind_delete(&mut self, delete: &ast::Delete) -> Result<DeletePlan<LogicalPlan>> {
        if let Some(with) = &delete.with {
            self.add_ctes(with)?;
        }
        let mut source = self.bind_source(&delete.from, delete.where_.as_ref())?;
        let mut targets = Vec::new();
        if delete.targets.is_empty() {
            targets.push(0);
        }
        for name in &delete.targets {
            let target = scan_named(&source.scans, name).ok_or_else(|| Error::UnknownTable {
                table: name.name.clone(),
                clause: "MULTI DELETE".to_owned(),
            })?;
            if targets.contains(&target) {
                return Err(Error::NonUniqTable { table: name.name.clone() });
            }
            targets.push(target);
        }
        for &target in &targets {
            let scan = source.scans.get(target).ok_or_else(|| Error::internal("DELETE without a table"))?;
            check_writable(&scan.0, "DELETE")?;
        }
        self.sort_and_limit(&mut source, &delete.order_by, delete.limit.as_ref())?;
        let (reader, targets) = self.reader(source, &targets, &[]);
        Ok(DeletePlan { reader, targets, ignore: delete.ignore })
    }
}
