//! The order of joins, by cost.
//!
//! Inner joins commute and associate; the right side of an outer, semi or anti join may be joined as soon as the tables that its
//! conditions name are there. Up to [`EXACT_MAX`] nodes every tree is tried that joins on conditions, bushy ones too (dynamic
//! programming over sets of nodes, Moerkotte and Neumann's DPsub); above, the pair of plans whose join is smallest is joined
//! first, again and again. `STRAIGHT_JOIN` and the hint `JOIN_FIXED_ORDER` leave joins as written.

use std::collections::HashMap;

use rutile_expr::Expr;

use super::cardinality;
use super::join_graph::{JoinGraph, Mask, Node, is_free};
use crate::optimizer::rules::push_down::join_schema;
use crate::plan::exprs::children_mut;
use crate::plan::logical::{Join, JoinKind, LogicalPlan};
use crate::plan::schema::ColumnId;

/// Joins of so many nodes are searched through entirely.
const EXACT_MAX: usize = 12;
/// Cost of a row that is put into a hash table, of one that looks in it being 1.
const BUILD_COST: f64 = 1.5;

/// Reorders every group of joins in a tree.
pub fn reorder(mut plan: LogicalPlan) -> LogicalPlan {
    if matches!(&plan, LogicalPlan::Join(join) if is_free(join)) {
        return ordered(JoinGraph::new(plan, &mut reorder));
    }
    for child in children_mut(&mut plan) {
        let whole = std::mem::replace(child, LogicalPlan::dual());
        *child = reorder(whole);
    }
    plan
}

/// A join tree, by places of nodes.
#[derive(Debug, Clone)]
struct Tree {
    rows: f64,
    cost: f64,
    /// The masks of both sides.
    sides: Option<(Mask, Mask)>,
}

fn ordered(graph: JoinGraph) -> LogicalPlan {
    let count = graph.nodes.len();
    let mut search = Search { rows: HashMap::new(), trees: HashMap::new(), graph };
    let all = if count >= 64 { Mask::MAX } else { (1 << count) - 1 };
    if count <= EXACT_MAX {
        search.exact(all);
    } else {
        search.greedy();
    }
    let Search { graph, trees, .. } = search;
    let mut nodes: Vec<Option<Node>> = Vec::new();
    let JoinGraph { nodes: taken, .. } = &graph;
    nodes.extend(taken.iter().map(|node| {
        let Node { plan, kind, on, requires, rows } = node;
        Some(Node { plan: plan.clone(), kind: *kind, on: on.clone(), requires: *requires, rows: *rows })
    }));
    let plan = build(all, &graph, &trees, &mut nodes);
    // Conditions that no join could test: they name no node, or only one that an outer join makes up.
    let left: Vec<Expr> = graph
        .conditions
        .iter()
        .filter(|(_, mask)| mask.count_ones() == 0 || (count == 1 && *mask == all))
        .map(|(condition, _)| condition.clone())
        .collect();
    filtered(plan, left)
}

struct Search {
    graph: JoinGraph,
    rows: HashMap<Mask, f64>,
    trees: HashMap<Mask, Tree>,
}

fn places(mask: Mask) -> impl Iterator<Item = usize> {
    (0..64).filter(move |place| mask & (1 << place) != 0)
}

impl Search {
    fn single(&self, place: usize) -> Tree {
        let rows = self.graph.nodes[place].rows;
        Tree { rows, cost: rows, sides: None }
    }

    /// Whether a set is a plan by itself: what its nodes hang on is in it.
    fn is_valid(&self, mask: Mask) -> bool {
        places(mask).all(|place| self.graph.nodes[place].requires & !mask == 0)
    }

    /// Whether two sets may be joined: inner joins of whole plans, or one node that hangs on the left set. Answers whether they
    /// have to be taken in the other order.
    fn joins(&self, left: Mask, right: Mask) -> Option<bool> {
        let hangs = |one: Mask, on: Mask| {
            one.count_ones() == 1
                && self.graph.nodes[one.trailing_zeros() as usize].requires != 0
                && self.graph.nodes[one.trailing_zeros() as usize].requires & !on == 0
                && self.is_valid(on)
        };
        match () {
            () if hangs(right, left) => Some(false),
            () if hangs(left, right) => Some(true),
            () if self.is_valid(left) && self.is_valid(right) => Some(false),
            () => None,
        }
    }

    fn exact(&mut self, all: Mask) {
        for place in places(all) {
            self.trees.insert(1 << place, self.single(place));
        }
        let adjacent: Vec<Mask> = places(all).map(|place| self.graph.neighbours(1 << place)).collect();
        let near = |mask: Mask| places(mask).fold(0, |near, place| near | adjacent[place]) & !mask;
        for mask in 1..=all {
            if mask.count_ones() < 2 || !self.is_valid(mask) {
                continue;
            }
            // A product is joined only where nothing else makes the set.
            for products in [false, true] {
                if products
                    && (self.trees.contains_key(&mask)
                        || (mask != all && near(mask) != 0 && is_connected(all, &adjacent)))
                {
                    break;
                }
                let low = mask & mask.wrapping_neg();
                let mut left = (mask - 1) & mask;
                while left != 0 {
                    let right = mask & !left;
                    if left & low != 0 && (products || near(left) & right != 0) {
                        self.try_join(left, right);
                    }
                    left = (left - 1) & mask;
                }
            }
        }
    }

    fn try_join(&mut self, left: Mask, right: Mask) {
        let Some(turned) = self.joins(left, right) else { return };
        let (left, right) = if turned { (right, left) } else { (left, right) };
        let (Some(l), Some(r)) = (self.trees.get(&left), self.trees.get(&right)) else { return };
        let (l, r) = (l.clone(), r.clone());
        let mask = left | right;
        let rows = self.rows_of(mask);
        let (small, large) = if l.rows <= r.rows { (l.rows, r.rows) } else { (r.rows, l.rows) };
        let cost = l.cost + r.cost + small * BUILD_COST + large + rows;
        if self.trees.get(&mask).is_none_or(|known| cost < known.cost) {
            self.trees.insert(mask, Tree { rows, cost, sides: Some((left, right)) });
        }
    }

    /// Again and again the two trees whose join is smallest.
    fn greedy(&mut self) {
        let mut roots: Vec<Mask> = (0..self.graph.nodes.len()).map(|place| 1 << place).collect();
        for place in 0..roots.len() {
            self.trees.insert(1 << place, self.single(place));
        }
        while roots.len() > 1 {
            let mut best: Option<(bool, f64, Mask, Mask)> = None;
            for (i, &left) in roots.iter().enumerate() {
                let near = self.graph.neighbours(left);
                for &right in &roots[i + 1..] {
                    let Some(turned) = self.joins(left, right) else { continue };
                    let (left, right) = if turned { (right, left) } else { (left, right) };
                    let product = near & (left | right) & !if turned { right } else { left } == 0;
                    let rows = self.rows_of(left | right);
                    if best.as_ref().is_none_or(|known| (product, rows) < (known.0, known.1)) {
                        best = Some((product, rows, left, right));
                    }
                }
            }
            let Some((_, _, left, right)) = best else { break };
            self.try_join(left, right);
            roots.retain(|root| *root != left && *root != right);
            roots.push(left | right);
        }
    }

    /// Rows of the join of a set: the same whatever its order.
    fn rows_of(&mut self, mask: Mask) -> f64 {
        if let Some(rows) = self.rows.get(&mask) {
            return *rows;
        }
        let graph = &self.graph;
        let mut rows = 1.0;
        let mut have: Mask = 0;
        for place in places(mask).filter(|place| graph.nodes[*place].kind == JoinKind::Inner) {
            rows *= graph.nodes[place].rows * class_part(graph, have, place);
            have |= 1 << place;
        }
        for (condition, of) in &graph.conditions {
            if of & !mask == 0 && of.count_ones() > 1 {
                let equal = condition.function_name() == Some("=");
                rows *= if equal { equality_part(graph, *of) } else { cardinality::OTHER_CONDITION_PART };
            }
        }
        for node in places(mask).map(|place| &graph.nodes[place]).filter(|node| node.kind != JoinKind::Inner)
        {
            rows *= hanging_part(graph, node);
        }
        let rows = rows.max(1.0);
        self.rows.insert(mask, rows);
        rows
    }
}

fn is_connected(all: Mask, adjacent: &[Mask]) -> bool {
    let mut reached: Mask = 1;
    loop {
        let next = places(reached).fold(reached, |next, place| next | adjacent[place]) & all;
        if next == reached {
            return reached == all;
        }
        reached = next;
    }
}

/// What part of the pairs of rows of a node and of those before it agrees in their common classes.
fn class_part(graph: &JoinGraph, have: Mask, place: usize) -> f64 {
    // By partner: pairs of columns with it count together, as one key.
    let mut by_partner: HashMap<usize, Vec<(ColumnId, ColumnId)>> = HashMap::new();
    for class in &graph.classes {
        let id = |expr: &Expr| expr.columns().first().copied();
        let own = class.members.iter().find(|(_, owner)| *owner == place).and_then(|(column, _)| id(column));
        // The partner with most values: the others are as few already.
        let partners = class.members.iter().filter(|(_, owner)| have & (1 << owner) != 0);
        let partner = partners.filter_map(|(column, owner)| Some((*owner, id(column)?))).max_by(|a, b| {
            let values = |(owner, id): &(usize, ColumnId)| cardinality::ndv(&graph.nodes[*owner].plan, *id);
            values(a).total_cmp(&values(b))
        });
        if let (Some(own), Some((owner, other))) = (own, partner) {
            by_partner.entry(owner).or_default().push((other, own));
        }
    }
    let own = &graph.nodes[place].plan;
    let parts = by_partner
        .iter()
        .map(|(owner, pairs)| cardinality::pairs_part(&graph.nodes[*owner].plan, own, pairs));
    parts.product()
}

/// Of an equality of expressions: as of a key of the largest table.
fn equality_part(graph: &JoinGraph, of: Mask) -> f64 {
    let rows = places(of).map(|place| graph.nodes[place].rows).fold(1.0, f64::max);
    1.0 / rows
}

/// By what the right side of an outer, semi or anti join multiplies the rows.
fn hanging_part(graph: &JoinGraph, node: &Node) -> f64 {
    let Some(left) = places(node.requires).next().map(|place| &graph.nodes[place].plan) else { return 1.0 };
    match node.kind {
        JoinKind::Semi => cardinality::semi_part(left, &node.plan, &node.on),
        JoinKind::Anti | JoinKind::NullAwareAnti => {
            (1.0 - cardinality::semi_part(left, &node.plan, &node.on)).max(0.1)
        }
        _ => (node.rows * cardinality::selectivity(left, &node.plan, &node.on)).max(1.0),
    }
}

fn build(
    mask: Mask,
    graph: &JoinGraph,
    trees: &HashMap<Mask, Tree>,
    nodes: &mut [Option<Node>],
) -> LogicalPlan {
    let Some((left_mask, right_mask)) = trees.get(&mask).and_then(|tree| tree.sides) else {
        return match nodes.get_mut(mask.trailing_zeros() as usize).and_then(Option::take) {
            Some(node) if mask.count_ones() == 1 => node.plan,
            Some(node) => unordered(mask, node, graph, nodes),
            None => LogicalPlan::dual(),
        };
    };
    let hanging = nodes[right_mask.trailing_zeros() as usize]
        .as_mut()
        .filter(|node| node.requires != 0 && right_mask.count_ones() == 1)
        .map(|node| (node.kind, std::mem::take(&mut node.on)));
    let left = build(left_mask, graph, trees, nodes);
    let right = build(right_mask, graph, trees, nodes);
    let conditions = graph.conditions_between(left_mask, right_mask, hanging.is_some());
    join(left, right, hanging, conditions)
}

fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    hanging: Option<(JoinKind, Vec<Expr>)>,
    conditions: Vec<Expr>,
) -> LogicalPlan {
    let (kind, filter, above) = match hanging {
        None => (JoinKind::Inner, conditions, Vec::new()),
        Some((kind, on)) => (kind, on, conditions),
    };
    let schema = left.schema().clone();
    let mut join =
        Join { kind, left: Box::new(left), right: Box::new(right), filter, schema, straight: false };
    join.schema = join_schema(&join);
    filtered(LogicalPlan::Join(join), above)
}

/// As written: the nodes one after the other. For sets that the search could not put together.
fn unordered(mask: Mask, first: Node, graph: &JoinGraph, nodes: &mut [Option<Node>]) -> LogicalPlan {
    let mut have: Mask = mask & mask.wrapping_neg();
    let mut plan = first.plan;
    for place in places(mask & !have) {
        let Some(node) = nodes[place].take() else { continue };
        let hanging = (node.requires != 0).then_some((node.kind, node.on));
        let conditions = graph.conditions_between(have, 1 << place, hanging.is_some());
        plan = join(plan, node.plan, hanging, conditions);
        have |= 1 << place;
    }
    plan
}

fn filtered(plan: LogicalPlan, predicates: Vec<Expr>) -> LogicalPlan {
    if predicates.is_empty() { plan } else { LogicalPlan::Filter { input: Box::new(plan), predicates } }
}
