//! Going through an expression's parts.

use super::expr::{ColumnName, Expr};

impl Expr {
    /// The expressions directly inside this one, from left to right; those of subqueries are not among them.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Literal(_)
            | Expr::Column(_)
            | Expr::Param(_)
            | Expr::UserVar(_)
            | Expr::SystemVar { .. }
            | Expr::Exists(_)
            | Expr::Subquery(_)
            | Expr::Unit(_)
            | Expr::Default(_)
            | Expr::Values(_) => Vec::new(),
            Expr::Assign { value: expr, .. }
            | Expr::Unary { expr, .. }
            | Expr::IsNull { expr, .. }
            | Expr::IsTruth { expr, .. }
            | Expr::InSubquery { expr, .. }
            | Expr::Quantified { left: expr, .. }
            | Expr::Cast { expr, .. }
            | Expr::ConvertUsing { expr, .. }
            | Expr::Collate { expr, .. }
            | Expr::Extract { expr, .. }
            | Expr::Interval { value: expr, .. }
            | Expr::Match { against: expr, .. } => vec![expr],
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::MemberOf { expr, array } => vec![expr, array],
            Expr::Regexp { expr, pattern, .. } => vec![expr, pattern],
            Expr::Between { expr, low, high, .. } => vec![expr, low, high],
            Expr::InList { expr, list, .. } => std::iter::once(&**expr).chain(list).collect(),
            Expr::Like { expr, pattern, escape, .. } => {
                [&**expr, pattern].into_iter().chain(escape.as_deref()).collect()
            }
            Expr::Row(items) | Expr::Char { args: items, .. } => items.iter().collect(),
            Expr::Case { operand, whens, else_ } => {
                let whens = whens.iter().flat_map(|(when, then)| [when, then]);
                operand.as_deref().into_iter().chain(whens).chain(else_.as_deref()).collect()
            }
            Expr::Function(function) => {
                function.args.iter().chain(function.order_by.iter().map(|item| &item.expr)).collect()
            }
            Expr::Trim { what, from, .. } => what.as_deref().into_iter().chain([&**from]).collect(),
        }
    }

    /// Whether this expression or a part of it is such a one.
    pub fn any(&self, test: &mut dyn FnMut(&Expr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// The columns it names, from left to right.
    pub fn column_names(&self) -> Vec<&ColumnName> {
        let mut found = Vec::new();
        self.collect_columns(&mut found);
        found
    }

    fn collect_columns<'a>(&'a self, found: &mut Vec<&'a ColumnName>) {
        if let Expr::Column(name) = self {
            found.push(name);
        }
        self.children().into_iter().for_each(|child| child.collect_columns(found));
    }

    /// Whether a user variable is assigned somewhere in it.
    pub fn assigns(&self) -> bool {
        self.any(&mut |expr| matches!(expr, Expr::Assign { .. }))
    }
}
