//! Table references and joins.

use crate::error::{Error, Result};

use super::ast::{
    Ident, IndexHint, IndexHintKind, IndexHintScope, Join, JoinConstraint, JoinKind, TableFactor, TableRef,
};
use super::cursor::Parser;
use super::lexer::Tok;

/// A join operator as written.
struct JoinOperator {
    kind: JoinKind,
    natural: bool,
}

impl Parser<'_> {
    pub fn table_refs(&mut self) -> Result<Vec<TableRef>> {
        self.comma_list(Self::table_ref)
    }

    /// A table with the joins after it.
    pub fn table_ref(&mut self) -> Result<TableRef> {
        let mut left = self.table_factor()?;
        let mut chain = 0;
        while let Some(operator) = self.join_operator()? {
            chain += 1;
            if chain > super::cursor::CHAIN_MAX {
                return Err(Error::TooDeep);
            }
            left = self.join_rest(left, operator)?;
        }
        Ok(left)
    }

    /// A join operator, or nothing consumed.
    fn join_operator(&mut self) -> Result<Option<JoinOperator>> {
        if !self.is(Tok::Word) {
            return Ok(None);
        }
        let natural = self.eat_kw("NATURAL");
        let kind = if self.eat_kw("JOIN") {
            JoinKind::Inner
        } else if !natural && self.eat_kw("STRAIGHT_JOIN") {
            JoinKind::Straight
        } else if self.is_kw("INNER") || (!natural && self.is_kw("CROSS")) {
            self.bump();
            self.expect_kw("JOIN")?;
            JoinKind::Inner
        } else if let Some(side) = self.eat_any(&["LEFT", "RIGHT"]) {
            self.eat_kw("OUTER");
            self.expect_kw("JOIN")?;
            if side == "LEFT" { JoinKind::Left } else { JoinKind::Right }
        } else if natural {
            return Err(self.error());
        } else {
            return Ok(None);
        };
        Ok(Some(JoinOperator { kind, natural }))
    }

    /// The right side and the condition. As in MySQL, `a JOIN b JOIN c ON x ON y` nests, and a join without a condition
    /// goes to the leftmost place, so that `a JOIN b JOIN c ON x` sees `a` in `x`.
    fn join_rest(&mut self, left: TableRef, operator: JoinOperator) -> Result<TableRef> {
        let JoinOperator { kind, natural } = operator;
        let mut right = self.table_factor()?;
        if natural {
            return Ok(TableRef::Join(Box::new(Join {
                kind,
                left,
                right,
                constraint: JoinConstraint::Natural,
            })));
        }
        loop {
            if self.eat_kw("ON") {
                let constraint = JoinConstraint::On(self.expr()?);
                return Ok(TableRef::Join(Box::new(Join { kind, left, right, constraint })));
            }
            if self.eat_kw("USING") {
                let constraint = JoinConstraint::Using(self.paren_list(Self::ident)?);
                return Ok(TableRef::Join(Box::new(Join { kind, left, right, constraint })));
            }
            match self.join_operator()? {
                Some(inner) => right = self.nested(|p| p.join_rest(right, inner))?,
                None if matches!(kind, JoinKind::Inner | JoinKind::Straight) => {
                    return Ok(cross_join(left, right, kind));
                }
                None => return Err(self.error()),
            }
        }
    }

    fn table_factor(&mut self) -> Result<TableRef> {
        if self.is(Tok::LParen) {
            return self.nested(Self::paren_table);
        }
        if self.is_kw("LATERAL") {
            self.bump();
            return self.derived(true);
        }
        if self.is_kw("JSON_TABLE") {
            return self.unsupported("JSON_TABLE");
        }
        if self.eat(Tok::LBrace) {
            self.ident_any()?;
            let table = self.table_ref()?;
            self.expect(Tok::RBrace)?;
            return Ok(table);
        }
        let name = self.object_name()?;
        let partitions = self.partition_names()?;
        let alias = self.table_alias()?;
        let index_hints = self.index_hints()?;
        if self.is_kw("TABLESAMPLE") {
            return self.unsupported("TABLESAMPLE");
        }
        Ok(TableRef::Table(TableFactor { name, alias, partitions, index_hints }))
    }

    /// A derived table, or table references in parentheses.
    fn paren_table(&mut self) -> Result<TableRef> {
        if self.at_paren_query() {
            return self.derived(false);
        }
        if self.peek().kind == Tok::LParen {
            let mark = self.mark();
            if let Ok(derived) = self.derived(false) {
                return Ok(derived);
            }
            self.reset(mark);
        }
        Ok(TableRef::List(self.paren_list(Self::table_ref)?))
    }

    fn derived(&mut self, lateral: bool) -> Result<TableRef> {
        let query = Box::new(self.paren_query()?);
        let Some(alias) = self.table_alias()? else {
            return Err(Error::DerivedMustHaveAlias);
        };
        let columns = if self.is(Tok::LParen) { self.paren_list(Self::ident)? } else { Vec::new() };
        Ok(TableRef::Derived { query, alias, columns, lateral })
    }

    /// `PARTITION (p, …)`, or nothing.
    pub fn partition_names(&mut self) -> Result<Vec<Ident>> {
        if self.eat_kw("PARTITION") { self.paren_list(Self::ident) } else { Ok(Vec::new()) }
    }

    pub fn table_alias(&mut self) -> Result<Option<Ident>> {
        if self.eat_kw("AS") {
            return Ok(Some(self.ident()?));
        }
        if self.is_ident() { Ok(Some(self.ident_any()?)) } else { Ok(None) }
    }

    fn index_hints(&mut self) -> Result<Vec<IndexHint>> {
        let mut hints = Vec::new();
        while let Some(word) = self.eat_any(&["USE", "IGNORE", "FORCE"]) {
            let kind = match word {
                "USE" => IndexHintKind::Use,
                "IGNORE" => IndexHintKind::Ignore,
                _ => IndexHintKind::Force,
            };
            if self.eat_any(&["INDEX", "KEY"]).is_none() {
                return Err(self.error());
            }
            let scope = if self.eat_kw("FOR") {
                match self.eat_any(&["JOIN", "ORDER", "GROUP"]) {
                    Some("JOIN") => IndexHintScope::Join,
                    Some(word) => {
                        self.expect_kw("BY")?;
                        if word == "ORDER" { IndexHintScope::OrderBy } else { IndexHintScope::GroupBy }
                    }
                    None => return Err(self.error()),
                }
            } else {
                IndexHintScope::All
            };
            self.expect(Tok::LParen)?;
            let indexes = if self.is(Tok::RParen) && kind == IndexHintKind::Use {
                Vec::new()
            } else {
                self.comma_list(|p| if p.eat_kw("PRIMARY") { Ok("PRIMARY".into()) } else { p.ident() })?
            };
            self.expect(Tok::RParen)?;
            hints.push(IndexHint { kind, scope, indexes });
        }
        Ok(hints)
    }
}

/// Joins `left` without a condition to the leftmost table of `right`.
fn cross_join(left: TableRef, right: TableRef, kind: JoinKind) -> TableRef {
    match right {
        TableRef::Join(mut join) => {
            join.left = cross_join(left, join.left, kind);
            TableRef::Join(join)
        }
        right => TableRef::Join(Box::new(Join { kind, left, right, constraint: JoinConstraint::None })),
    }
}
