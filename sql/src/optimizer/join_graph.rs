//! What joins join, freed from the order they were written in: the joined plans, and the conditions between them.

use std::collections::{HashMap, HashSet};

use rutile_expr::Expr;
use rutile_expr::types::field_type::Family;

use super::cardinality;
use crate::plan::logical::{Join, JoinKind, LogicalPlan};
use crate::plan::schema::ColumnId;

/// A set of nodes, by their places.
pub type Mask = u64;

/// Nodes a graph may have.
pub const NODES_MAX: usize = 60;

/// One of the plans that are joined.
pub struct Node {
    pub plan: LogicalPlan,
    /// How it hangs on the others: `Inner`, or the kind of the join whose right side it is.
    pub kind: JoinKind,
    /// For the right side of an outer, semi or anti join: that join's conditions.
    pub on: Vec<Expr>,
    /// For such a right side: the nodes that have to be joined before.
    pub requires: Mask,
    pub rows: f64,
}

/// Nodes, and the conditions of all inner joins between them.
#[derive(Default)]
pub struct JoinGraph {
    pub nodes: Vec<Node>,
    /// Conditions with the nodes they are about; equalities of columns are in `classes`.
    pub conditions: Vec<(Expr, Mask)>,
    /// Columns that are equal in every row of the result.
    pub classes: Vec<Class>,
    /// The equalities as they were written.
    pub equalities: Vec<Expr>,
    owners: HashMap<ColumnId, usize>,
}

/// Columns that are equal to each other, with the node of each.
pub struct Class {
    pub members: Vec<(Expr, usize)>,
    pub mask: Mask,
}

/// Whether a join's sides may be joined in another order with what is around it.
pub fn is_free(join: &Join) -> bool {
    !join.straight && !matches!(join.kind, JoinKind::Right | JoinKind::Mark)
}

impl JoinGraph {
    /// The graph of a tree of joins. `leaf` is what is done with the plans that are joined.
    pub fn new(plan: LogicalPlan, leaf: &mut dyn FnMut(LogicalPlan) -> LogicalPlan) -> JoinGraph {
        let mut graph = JoinGraph::default();
        let mut conditions = Vec::new();
        graph.flatten(plan, &mut conditions, leaf);
        for condition in conditions {
            match graph.equality(&condition) {
                Some((left, right)) => {
                    graph.equate(left, right);
                    graph.equalities.push(condition);
                }
                None => {
                    let mask = graph.mask_of(&condition);
                    graph.conditions.push((condition, mask));
                }
            }
        }
        graph.restrict_nodes();
        graph
    }

    fn add(&mut self, plan: LogicalPlan, kind: JoinKind, on: Vec<Expr>, requires: Mask) {
        let place = self.nodes.len();
        if !is_half(kind) {
            self.owners.extend(plan.schema().ids().map(|id| (id, place)));
        }
        let rows = cardinality::rows(&plan);
        self.nodes.push(Node { plan, kind, on, requires, rows });
    }

    fn flatten(
        &mut self,
        plan: LogicalPlan,
        conditions: &mut Vec<Expr>,
        leaf: &mut dyn FnMut(LogicalPlan) -> LogicalPlan,
    ) {
        match plan {
            LogicalPlan::Join(join) if is_free(&join) && self.nodes.len() < NODES_MAX => {
                let Join { kind, left, right, filter, .. } = join;
                let before = self.nodes.len();
                self.flatten(*left, conditions, leaf);
                if kind == JoinKind::Inner {
                    self.flatten(*right, conditions, leaf);
                    conditions.extend(filter);
                    return;
                }
                let own: HashSet<ColumnId> = right.schema().ids().collect();
                let mut requires = 0;
                for id in filter.iter().flat_map(Expr::columns).filter(|id| !own.contains(id)) {
                    requires |= self.owners.get(&id).map_or(0, |place| 1 << place);
                }
                if requires == 0 {
                    requires = ((1 << self.nodes.len()) - 1) & !((1 << before) - 1);
                }
                self.add(leaf(*right), kind, filter, requires);
            }
            // Names alone: the join below is one with this one.
            LogicalPlan::Project { input, exprs, schema }
                if exprs
                    .iter()
                    .zip(schema.ids())
                    .all(|(expr, id)| matches!(expr, Expr::Column { index, .. } if *index == id))
                    && matches!(&*input, LogicalPlan::Join(join) if is_free(join)) =>
            {
                self.flatten(*input, conditions, leaf);
            }
            other => self.add(leaf(other), JoinKind::Inner, Vec::new(), 0),
        }
    }

    /// The nodes whose columns an expression reads.
    pub fn mask_of(&self, expr: &Expr) -> Mask {
        expr.columns().iter().fold(0, |mask, id| mask | self.owners.get(id).map_or(0, |place| 1 << place))
    }

    /// Both columns of an equality that is as good as identity: same representation, same collation.
    fn equality(&self, condition: &Expr) -> Option<(Expr, Expr)> {
        let Expr::Call(call) = condition else { return None };
        let (left @ Expr::Column { .. }, right @ Expr::Column { .. }) =
            (call.args.first()?, call.args.get(1)?)
        else {
            return None;
        };
        let (l, r) = (left.field_type(), right.field_type());
        let alike = l.arrow() == r.arrow() && l.family() == r.family() && l.family() != Family::Double;
        let text = l.is_string() && (l.collation != call.collation || r.collation != call.collation);
        let known = [left, right].iter().all(|column| self.mask_of(column) != 0);
        (call.func.name == "=" && alike && !text && known && l.family() != Family::Enum)
            .then(|| (left.clone(), right.clone()))
    }

    fn equate(&mut self, left: Expr, right: Expr) {
        let place = |expr: &Expr| self.mask_of(expr).trailing_zeros() as usize;
        let mut members = vec![(left.clone(), place(&left)), (right.clone(), place(&right))];
        let touches = |class: &Class| {
            class.members.iter().any(|(known, _)| {
                *known == left || *known == right || same(known, &left) || same(known, &right)
            })
        };
        let (touched, mut rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.classes).into_iter().partition(touches);
        for (member, place) in touched.into_iter().flat_map(|class| class.members) {
            if !members.iter().any(|(known, _)| same(known, &member)) {
                members.push((member, place));
            }
        }
        let mask = members.iter().fold(0, |mask, (_, place)| mask | 1 << place);
        rest.push(Class { members, mask });
        self.classes = rest;
    }

    /// Two equal columns of one node: a condition on that node.
    fn restrict_nodes(&mut self) {
        for class in &self.classes {
            for place in 0..self.nodes.len() {
                let mut own =
                    class.members.iter().filter(|(_, owner)| *owner == place).map(|(column, _)| column);
                let Some(first) = own.next() else { continue };
                for other in own {
                    let Some(equality) = equality_of(&self.equalities, first, other) else { continue };
                    self.conditions.push((equality, 1 << place));
                }
            }
        }
        let conditions = std::mem::take(&mut self.conditions);
        for (condition, mask) in conditions {
            let place = mask.trailing_zeros() as usize;
            match self.nodes.get_mut(place) {
                // A row that an outer join makes up has to be tested, too.
                Some(node) if mask.count_ones() == 1 && node.kind == JoinKind::Inner => {
                    let whole = std::mem::replace(&mut node.plan, LogicalPlan::dual());
                    node.plan = restricted(whole, condition);
                    node.rows = cardinality::rows(&node.plan);
                }
                _ => self.conditions.push((condition, mask)),
            }
        }
    }

    /// The nodes that a condition or an equality joins with one of `mask`.
    pub fn neighbours(&self, mask: Mask) -> Mask {
        let conditions = self.conditions.iter().map(|(_, of)| *of);
        let classes = self.classes.iter().map(|class| class.mask);
        let required = self.nodes.iter().enumerate().filter(|(_, node)| node.requires != 0);
        let required = required.map(|(place, node)| node.requires | 1 << place);
        conditions.chain(classes).chain(required).filter(|of| of & mask != 0).fold(0, |all, of| all | of)
            & !mask
    }

    /// The conditions that can be tested once `left` and `right` are joined, and not before. Those on a right side that `hangs`
    /// on the left one were not tested on it alone.
    pub fn conditions_between(&self, left: Mask, right: Mask, hangs: bool) -> Vec<Expr> {
        let both = left | right;
        let mut found = Vec::new();
        for class in &self.classes {
            let of = |mask: Mask| class.members.iter().filter(move |(_, place)| mask & (1 << place) != 0);
            let pairs = of(left).flat_map(|(l, _)| of(right).map(move |(r, _)| (l, r)));
            let mut all: Vec<(&Expr, &Expr)> = pairs.collect();
            // One that was written, if there is one.
            all.sort_by_key(|(l, r)| !self.equalities.iter().any(|known| equates(known, l, r)));
            found.extend(all.first().and_then(|(l, r)| equality_of(&self.equalities, l, r)));
        }
        let ready = |of: Mask| of & !both == 0 && of & !left != 0 && (hangs || of & !right != 0);
        found.extend(
            self.conditions.iter().filter(|(_, of)| ready(*of)).map(|(condition, _)| condition.clone()),
        );
        found
    }
}

/// Whether of a join's right side nothing comes out.
pub fn is_half(kind: JoinKind) -> bool {
    matches!(kind, JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti)
}

/// Types of one column differ where an outer join makes it nullable.
fn same(a: &Expr, b: &Expr) -> bool {
    crate::plan::exprs::same_expr(a, b)
}

fn equates(condition: &Expr, left: &Expr, right: &Expr) -> bool {
    let [a, b] = condition.args() else { return false };
    (same(a, left) && same(b, right)) || (same(a, right) && same(b, left))
}

/// `left = right`, made like an equality that is there already.
fn equality_of(equalities: &[Expr], left: &Expr, right: &Expr) -> Option<Expr> {
    if let Some(written) = equalities.iter().find(|known| equates(known, left, right)) {
        return Some(written.clone());
    }
    let model = equalities.iter().find(|known| known.args().iter().any(|arg| same(arg, left)))?;
    let Expr::Call(call) = model else { return None };
    let mut call = call.clone();
    call.args = vec![left.clone(), right.clone()];
    Some(Expr::Call(call))
}

/// A plan with one more condition.
pub fn restricted(plan: LogicalPlan, condition: Expr) -> LogicalPlan {
    match plan {
        LogicalPlan::Scan(mut scan) => {
            scan.filters.push(condition);
            LogicalPlan::Scan(scan)
        }
        LogicalPlan::Filter { input, mut predicates } => {
            predicates.push(condition);
            LogicalPlan::Filter { input, predicates }
        }
        other => LogicalPlan::Filter { input: Box::new(other), predicates: vec![condition] },
    }
}
