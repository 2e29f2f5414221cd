//! Expressions: names become columns, functions get their types, and implicit casts appear.

use rutile_expr::types::{Collation, Datum, FieldType};
use rutile_expr::{Expr, registry};

use super::scope::{Clause, same};
use super::{Binder, ExprScope, column_expr};
use crate::context::VariableScope;
use crate::error::{Error, Result};
use crate::parser::ast::{self, BinaryOp, Truth, UnaryOp};

impl Binder<'_> {
    /// Binds an expression that must be one value.
    pub(super) fn bind_expr(&mut self, expr: &ast::Expr, names: &mut ExprScope<'_>) -> Result<Expr> {
        use ast::Expr as E;
        match expr {
            E::Literal(literal) => self.bind_literal(literal),
            E::Column(name) => self.bind_column(name, names),
            E::Param(index) => Ok(self.bind_param(*index)),
            E::UserVar(name) => self.bind_user_var(name),
            E::SystemVar { scope, name } => self.bind_system_var(*scope, name),
            E::Assign { var, value } => {
                self.cacheable = false;
                let value = self.bind_expr(value, names)?;
                self.assigned.insert(var.to_lowercase(), value.field_type().clone().with_not_null(false));
                let var = Expr::string(var, Collation::DEFAULT);
                self.call("setvar", vec![var, value])
            }
            E::Unary { op, expr } => self.bind_unary(*op, expr, names),
            E::Binary { op, left, right } => self.bind_binary(*op, left, right, names),
            E::IsNull { expr, negated } => {
                let value = self.bind_expr(expr, names)?;
                let test = self.call("is_null", vec![value])?;
                self.negate_if(*negated, test)
            }
            E::IsTruth { expr, truth, negated } => {
                let value = self.bind_expr(expr, names)?;
                let name = match truth {
                    Truth::True => "is_true",
                    Truth::False => "is_false",
                    Truth::Unknown => "is_null",
                };
                let test = self.call(name, vec![value])?;
                self.negate_if(*negated, test)
            }
            E::Between { expr, low, high, negated } => self.bind_between(expr, low, high, *negated, names),
            E::InList { expr, list, negated } => self.bind_in_list(expr, list, *negated, names),
            E::InSubquery { expr, query, negated } => {
                let op = if *negated { "<>" } else { "=" };
                self.bind_quantified(expr, op, *negated, query, names)
            }
            E::Quantified { left, op, all, query } => {
                self.bind_quantified(left, op_name(*op)?, *all, query, names)
            }
            E::Exists(query) => self.bind_exists(query, names),
            E::Subquery(query) => self.bind_scalar_subquery(query, names),
            E::Like { expr, pattern, escape, negated } => {
                let mut args = vec![self.bind_expr(expr, names)?, self.bind_expr(pattern, names)?];
                if let Some(escape) = escape {
                    args.push(self.bind_expr(escape, names)?);
                }
                let test = self.call("like", args)?;
                self.negate_if(*negated, test)
            }
            E::Regexp { expr, pattern, negated } => {
                let args = vec![self.bind_expr(expr, names)?, self.bind_expr(pattern, names)?];
                let test = self.call("regexp", args)?;
                self.negate_if(*negated, test)
            }
            E::MemberOf { .. } => Err(Error::not_supported("MEMBER OF")),
            E::Row(_) => Err(Error::OperandColumns { columns: 1 }),
            E::Case { operand, whens, else_ } => {
                self.bind_case(operand.as_deref(), whens, else_.as_deref(), names)
            }
            other => self.bind_function_like(other, names),
        }
    }

    /// The forms that are functions with a syntax of their own.
    fn bind_function_like(&mut self, expr: &ast::Expr, names: &mut ExprScope<'_>) -> Result<Expr> {
        use ast::Expr as E;
        match expr {
            E::Cast { expr, ty, array } => {
                if *array {
                    return Err(Error::not_supported("CAST to an array or AT TIME ZONE"));
                }
                let value = self.bind_expr(expr, names)?;
                let ty = self.cast_type(ty)?;
                Ok(registry::explicit_cast(value, ty))
            }
            E::ConvertUsing { expr, charset } => {
                let value = self.bind_expr(expr, names)?;
                Ok(convert_using(value, rutile_expr::types::Charset::from_name(charset)?))
            }
            E::Collate { expr, collation } => {
                let value = self.bind_expr(expr, names)?;
                let collation = Collation::from_name(collation)?;
                Ok(registry::collate(value, collation)?)
            }
            E::Function(function) => self.bind_function(function, names),
            E::Extract { unit, expr } => {
                let value = self.bind_expr(expr, names)?;
                self.call("extract", vec![unit_expr(*unit), value])
            }
            E::Trim { side, what, from } => {
                let value = self.bind_expr(from, names)?;
                let what = match what {
                    Some(what) => self.bind_expr(what, names)?,
                    None => Expr::string(" ", self.ctx.statement.eval.connection_collation),
                };
                let side = match side {
                    ast::TrimSide::Both => "BOTH",
                    ast::TrimSide::Leading => "LEADING",
                    ast::TrimSide::Trailing => "TRAILING",
                };
                self.call("trim", vec![value, what, Expr::string(side, Collation::Utf8mb4Bin)])
            }
            E::Char { args, charset } => {
                let args = args.iter().map(|arg| self.bind_expr(arg, names)).collect::<Result<_>>()?;
                let bytes = self.call("char", args)?;
                match charset {
                    None => Ok(bytes),
                    Some(charset) => {
                        let charset = rutile_expr::types::Charset::from_name(charset)?;
                        Ok(convert_using(bytes, charset))
                    }
                }
            }
            E::Unit(unit) => Ok(unit_expr(*unit)),
            E::Default(Some(name)) => self.bind_default_of(name, names),
            E::Default(None) => Err(Error::not_supported("DEFAULT here")),
            E::Values(name) => self.bind_values_of(name, names),
            E::Match { .. } => Err(Error::not_supported("MATCH ... AGAINST")),
            other => Err(Error::internal(format!("no meaning for {other:?}"))),
        }
    }

    /// A condition: any value is true unless it is 0 or NULL.
    pub(super) fn bind_condition(&mut self, expr: &ast::Expr, names: &mut ExprScope<'_>) -> Result<Expr> {
        self.bind_expr(expr, names)
    }

    /// One value or the parts of a row constructor.
    pub(super) fn bind_row(&mut self, expr: &ast::Expr, names: &mut ExprScope<'_>) -> Result<Vec<Expr>> {
        match expr {
            ast::Expr::Row(parts) => parts.iter().map(|part| self.bind_expr(part, names)).collect(),
            ast::Expr::Subquery(query) => self.bind_row_subquery(query, names),
            one => Ok(vec![self.bind_expr(one, names)?]),
        }
    }

    /// A function by name, with MySQL's type inference.
    pub(super) fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        Ok(registry::resolve(&self.ctx.statement.eval, name, args)?)
    }

    fn negate_if(&self, negated: bool, test: Expr) -> Result<Expr> {
        if negated { self.call("not", vec![test]) } else { Ok(test) }
    }

    fn bind_literal(&self, literal: &ast::Literal) -> Result<Expr> {
        use ast::Literal as L;
        Ok(match literal {
            L::Null => Expr::null(),
            L::Bool(value) => Expr::bool(*value),
            L::Int(value) => match i64::try_from(*value) {
                Ok(value) => Expr::int(value),
                Err(_) => Expr::number(&value.to_string())?,
            },
            L::Decimal(text) | L::Float(text) => Expr::number(text)?,
            L::Str { value, charset: None } => {
                let collation = self.ctx.statement.eval.connection_collation;
                match String::from_utf8(value.clone()) {
                    Ok(text) if collation != Collation::Binary => Expr::string(&text, collation),
                    Ok(text) => Expr::bytes(text.into_bytes()),
                    Err(error) => Expr::bytes(error.into_bytes()),
                }
            }
            L::Str { value, charset: Some(charset) } => self.introduced(value, charset)?,
            L::Hex { value, charset } | L::Bit { value, charset } => match charset {
                None => Expr::bytes(value.clone()),
                Some(charset) => self.introduced(value, charset)?,
            },
            L::Temporal { kind, value } => {
                let kind = match kind {
                    ast::TemporalKind::Date => "date_literal",
                    ast::TemporalKind::Time => "time_literal",
                    ast::TemporalKind::Timestamp => "timestamp_literal",
                };
                let text = Expr::string(value, Collation::DEFAULT);
                self.call(kind, vec![text])?.fold(&self.ctx.statement.eval, false)
            }
        })
    }

    /// `_charset'…'`: the bytes are text of that character set.
    fn introduced(&self, value: &[u8], charset: &str) -> Result<Expr> {
        let charset = rutile_expr::types::Charset::from_name(charset)?;
        let collation = charset.default_collation();
        if collation == Collation::Binary {
            return Ok(Expr::bytes(value.to_vec()));
        }
        let text = charset.decode(value).ok_or_else(|| Error::InvalidCharacterString {
            charset: charset.name().to_owned(),
            text: String::from_utf8_lossy(value).into_owned(),
        })?;
        Ok(Expr::string(&text, collation))
    }

    fn bind_param(&self, index: usize) -> Expr {
        let collation = self.ctx.statement.eval.connection_collation;
        let field_type = match self.ctx.param_types.get(index) {
            Some(field_type) => field_type.clone(),
            None => FieldType::varchar(rutile_expr::types::field_type::LENGTH_UNSPECIFIED, collation),
        };
        Expr::Param { index, field_type }
    }

    fn bind_user_var(&mut self, name: &str) -> Result<Expr> {
        self.cacheable = false;
        let mut args = vec![Expr::string(name, Collation::DEFAULT)];
        if !self.assigning {
            return self.call("getvar", args);
        }
        if let Some(ty) = self.assigned.get(&name.to_lowercase()) {
            args.push(Expr::literal(Datum::Null, ty.clone()));
        }
        self.call("getvar_now", args)
    }

    fn bind_system_var(&mut self, scope: Option<ast::VarScope>, name: &str) -> Result<Expr> {
        self.cacheable = false;
        let scope = scope.map(|scope| match scope {
            ast::VarScope::Session => VariableScope::Session,
            ast::VarScope::Global | ast::VarScope::Persist | ast::VarScope::PersistOnly => {
                VariableScope::Global
            }
        });
        let (value, ty): (Datum, FieldType) = self.ctx.statement.environment.variable(scope, name)?;
        Ok(Expr::literal(value, ty))
    }

    fn bind_column(&mut self, name: &ast::ColumnName, names: &mut ExprScope<'_>) -> Result<Expr> {
        if names.clause == Clause::Having && !names.in_aggregate {
            return bind_having_column(name, names);
        }
        match names.chain.resolve(name, names.clause) {
            Ok(column) => Ok(column_expr(column)),
            Err(error @ Error::BadField { .. }) => {
                let alias = (name.table.is_none() && !names.in_aggregate)
                    .then(|| names.items.iter().find(|item| same(&item.title, &name.name)));
                alias.flatten().map(|item| item.expr.clone()).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn bind_unary(&mut self, op: UnaryOp, expr: &ast::Expr, names: &mut ExprScope<'_>) -> Result<Expr> {
        // A minus before digits belongs to the number: -9223372036854775808 is a BIGINT.
        if let (UnaryOp::Neg, ast::Expr::Literal(ast::Literal::Int(value))) = (op, expr)
            && *value <= 1 << 63
        {
            return Ok(Expr::int((*value as i64).wrapping_neg()));
        }
        let value = self.bind_expr(expr, names)?;
        match op {
            UnaryOp::Plus => Ok(value),
            UnaryOp::Not => self.call("not", vec![value]),
            UnaryOp::Neg => self.call("neg", vec![value]),
            UnaryOp::BitNot => self.call("~", vec![value]),
        }
    }

    fn bind_binary(
        &mut self,
        op: BinaryOp,
        left: &ast::Expr,
        right: &ast::Expr,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        if op.is_comparison() && (matches!(left, ast::Expr::Row(_)) || matches!(right, ast::Expr::Row(_))) {
            let (left, right) = (self.bind_row(left, names)?, self.bind_row(right, names)?);
            return self.compare_rows(op, left, right);
        }
        match (op, left, right) {
            (BinaryOp::Add | BinaryOp::Sub, value, ast::Expr::Interval { value: amount, unit }) => {
                let name = if op == BinaryOp::Add { "date_add" } else { "date_sub" };
                let args =
                    vec![self.bind_expr(value, names)?, self.bind_expr(amount, names)?, unit_expr(*unit)];
                return self.call(name, args);
            }
            (BinaryOp::Add, ast::Expr::Interval { value: amount, unit }, value) => {
                let args =
                    vec![self.bind_expr(value, names)?, self.bind_expr(amount, names)?, unit_expr(*unit)];
                return self.call("date_add", args);
            }
            _ => {}
        }
        let args = vec![self.bind_expr(left, names)?, self.bind_expr(right, names)?];
        self.call(op_name(op)?, args)
    }

    /// `(a, b) = (c, d)` and its kin, by columns.
    fn compare_rows(&self, op: BinaryOp, left: Vec<Expr>, right: Vec<Expr>) -> Result<Expr> {
        if left.len() != right.len() {
            return Err(Error::OperandColumns { columns: left.len() });
        }
        let mut pairs = left.into_iter().zip(right).rev();
        let (l, r) = pairs.next().ok_or(Error::OperandColumns { columns: 1 })?;
        match op {
            BinaryOp::Eq | BinaryOp::NullSafeEq | BinaryOp::Ne => {
                let each = if op == BinaryOp::NullSafeEq { "<=>" } else { "=" };
                let mut all = self.call(each, vec![l, r])?;
                for (l, r) in pairs {
                    let one = self.call(each, vec![l, r])?;
                    all = self.call("and", vec![one, all])?;
                }
                self.negate_if(op == BinaryOp::Ne, all)
            }
            _ => {
                // The last columns decide with the operator itself, those before with its strict form or equality.
                let name = op_name(op)?;
                let mut result = self.call(name, vec![l, r])?;
                let strict = name.trim_end_matches('=');
                for (l, r) in pairs {
                    let decided = self.call(strict, vec![l.clone(), r.clone()])?;
                    let equal = self.call("=", vec![l, r])?;
                    let rest = self.call("and", vec![equal, result])?;
                    result = self.call("or", vec![decided, rest])?;
                }
                Ok(result)
            }
        }
    }

    fn bind_between(
        &mut self,
        expr: &ast::Expr,
        low: &ast::Expr,
        high: &ast::Expr,
        negated: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let value = self.bind_expr(expr, names)?;
        let (low, high) = (self.bind_expr(low, names)?, self.bind_expr(high, names)?);
        let test = self.call("between", vec![value, low, high])?;
        self.negate_if(negated, test)
    }

    fn bind_in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        if matches!(expr, ast::Expr::Row(_)) {
            let left = self.bind_row(expr, names)?;
            let mut any: Option<Expr> = None;
            for item in list {
                let right = self.bind_row(item, names)?;
                let one = self.compare_rows(BinaryOp::Eq, left.clone(), right)?;
                any = Some(match any {
                    None => one,
                    Some(before) => self.call("or", vec![before, one])?,
                });
            }
            let any = any.ok_or_else(|| Error::internal("IN without values"))?;
            return self.negate_if(negated, any);
        }
        let mut args = vec![self.bind_expr(expr, names)?];
        for item in list {
            args.push(self.bind_expr(item, names)?);
        }
        let test = self.call("in", args)?;
        self.negate_if(negated, test)
    }

    fn bind_case(
        &mut self,
        operand: Option<&ast::Expr>,
        whens: &[(ast::Expr, ast::Expr)],
        else_: Option<&ast::Expr>,
        names: &mut ExprScope<'_>,
    ) -> Result<Expr> {
        let operand = operand.map(|operand| self.bind_expr(operand, names)).transpose()?;
        let mut bound = Vec::with_capacity(whens.len());
        for (when, then) in whens {
            let mut condition = self.bind_expr(when, names)?;
            if let Some(operand) = &operand {
                condition = self.call("=", vec![operand.clone(), condition])?;
            }
            bound.push((condition, self.bind_expr(then, names)?));
        }
        let else_ = else_.map(|value| self.bind_expr(value, names)).transpose()?;
        self.case(bound, else_)
    }

    /// `CASE WHEN … THEN … ELSE … END`
    pub(super) fn case(&self, whens: Vec<(Expr, Expr)>, else_: Option<Expr>) -> Result<Expr> {
        let mut args = Vec::with_capacity(whens.len() * 2 + 1);
        for (when, then) in whens {
            args.push(when);
            args.push(then);
        }
        args.extend(else_);
        self.call("case", args)
    }

    fn bind_function(&mut self, function: &ast::Function, names: &mut ExprScope<'_>) -> Result<Expr> {
        let name = function.name.to_ascii_lowercase();
        if function.over.is_some() {
            return Err(Error::not_supported("window functions"));
        }
        if let Some(schema) = &function.schema {
            let name = format!("{schema}.{}", function.name);
            return Err(Error::DoesNotExist { kind: "FUNCTION", name });
        }
        if super::aggregate::is_aggregate(&name) {
            return self.bind_aggregate(function, names);
        }
        let mut args = Vec::with_capacity(function.args.len());
        for arg in &function.args {
            match arg {
                ast::Expr::Interval { value, unit } => {
                    args.push(self.bind_expr(value, names)?);
                    args.push(unit_expr(*unit));
                }
                arg => args.push(self.bind_expr(arg, names)?),
            }
        }
        match name.as_str() {
            "any_value" if args.len() == 1 => {
                let value = args.swap_remove(0);
                if let Some(aggregates) = &mut names.aggregates {
                    aggregates.any_value.extend(value.columns());
                }
                return Ok(value);
            }
            "adddate" | "subdate" if args.len() == 2 => args.push(unit_expr(ast::IntervalUnit::Day)),
            _ => {}
        }
        match self.call(&name, args) {
            Err(Error::Mysql { code: 1305, .. }) => {
                let db = self.ctx.statement.database.as_deref().unwrap_or_default();
                Err(Error::DoesNotExist { kind: "FUNCTION", name: format!("{db}.{}", function.name) })
            }
            Err(Error::Mysql { code: 1582, .. }) => {
                Err(Error::WrongParameterCount { function: function.name.clone() })
            }
            other => other,
        }
    }

    fn bind_default_of(&mut self, name: &ast::ColumnName, names: &mut ExprScope<'_>) -> Result<Expr> {
        let column = names.chain.resolve(name, names.clause)?;
        let (_, table) = self.resolve_table(&ast::ObjectName {
            schema: Some(column.db.clone()),
            name: column.org_table.clone(),
        })?;
        match table.column(&column.org_name) {
            Some((_, info)) => self.default_constant(info),
            None => Err(Error::NoDefaultForField { column: column.name.clone() }),
        }
    }

    /// `VALUES(c)`: the row that was to be inserted.
    fn bind_values_of(&mut self, name: &ast::ColumnName, names: &mut ExprScope<'_>) -> Result<Expr> {
        let column = names.chain.resolve(name, names.clause)?;
        Ok(match names.values_row {
            Some(first) if column.id < first => {
                Expr::column(first + column.id, &column.name, column.ty.clone())
            }
            _ => Expr::null(),
        })
    }
}

/// HAVING sees grouping columns, then the select list, then columns that the select list names; others are unknown.
fn bind_having_column(name: &ast::ColumnName, names: &mut ExprScope<'_>) -> Result<Expr> {
    let local = names.chain.scope.find(name, Clause::Having)?;
    let group_ids =
        names.aggregates.as_ref().map(|aggregates| aggregates.group_ids.as_slice()).unwrap_or_default();
    if let Some(column) = local.filter(|column| group_ids.contains(&column.id)) {
        return Ok(column_expr(column));
    }
    if name.table.is_none()
        && let Some(item) = names.items.iter().find(|item| same(&item.title, &name.name))
    {
        return Ok(item.expr.clone());
    }
    match local {
        Some(column) => {
            let listed =
                names.items.iter().any(|item| item.column.as_ref().is_some_and(|c| c.id == column.id));
            if listed {
                Ok(column_expr(column))
            } else {
                Err(Error::bad_field(name.to_string(), Clause::Having.name()))
            }
        }
        None => names.chain.resolve(name, Clause::Having).map(column_expr),
    }
}

/// The parts of a conjunction.
pub(super) fn conjuncts(expr: &ast::Expr) -> Vec<&ast::Expr> {
    let mut parts = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            ast::Expr::Binary { op: BinaryOp::And, left, right } => open.extend([&**right, &**left]),
            part => parts.push(part),
        }
    }
    parts
}

/// `CONVERT(expr USING charset)`
fn convert_using(value: Expr, charset: rutile_expr::types::Charset) -> Expr {
    let ty =
        FieldType::varchar(rutile_expr::types::field_type::LENGTH_UNSPECIFIED, charset.default_collation());
    registry::explicit_cast(value, ty)
}

fn unit_expr(unit: ast::IntervalUnit) -> Expr {
    Expr::string(unit.name(), Collation::Utf8mb4Bin)
}

/// The registry's name of an operator.
fn op_name(op: BinaryOp) -> Result<&'static str> {
    Ok(match op {
        BinaryOp::IntDiv => "div",
        BinaryOp::Concat => "concat",
        BinaryOp::SoundsLike => return Err(Error::not_supported("SOUNDS LIKE")),
        BinaryOp::JsonExtract | BinaryOp::JsonUnquote => return Err(Error::not_supported(op.symbol())),
        _ => op.symbol(),
    })
}
