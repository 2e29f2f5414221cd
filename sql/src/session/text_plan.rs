//! Plans of texts: a statement that comes as text again and again, with other literals each time, is parsed and planned once.
//!
//! The text's values become parameters ([`crate::parser::normalize`]), and what is left of it is a key of the server's cache. When a
//! key comes for the second time, the statement is planned with parameters; such a plan is kept only if no value could lead to a
//! better one: points and ranges of the rows' own keys. Everything else is planned for its values, each time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use quick_cache::sync::Cache;
use rutile_client::TxnMode;
use rutile_expr::types::{Charset, Datum};
use tokio_util::sync::CancellationToken;

use super::prepared::{CachedPlan, PlanKey};
use super::{Request, Session};
use crate::context::StatementTxn;
use crate::parser::ast::Statement;
use crate::parser::normalize::{self, Parameters};
use crate::parser::parse_one;
use crate::plan::{InsertSource, PhysicalNode, PhysicalPlan, Plan, PlanBody};

/// Texts remembered at most.
const TEXTS_MAX: usize = 2000;

/// The texts of one server.
pub struct TextPlans {
    cache: Cache<Vec<u8>, Arc<TextPlan>>,
}

impl Default for TextPlans {
    fn default() -> TextPlans {
        TextPlans { cache: Cache::new(TEXTS_MAX) }
    }
}

/// What is remembered of a text.
pub enum TextPlan {
    /// It came once.
    Seen,
    /// Its plan depends on its values, or it has none: not tried again under the same schema and statistics.
    Refused {
        schema_version: i64,
        statistics: u64,
    },
    Ready(ReadyPlan),
}

/// A statement with parameters in place of its values.
pub struct ReadyPlan {
    pub statement: Arc<Statement>,
    pub cached: CachedPlan,
}

/// A text that need not be parsed.
pub struct TextHit {
    plan: Arc<TextPlan>,
    pub params: Vec<Datum>,
}

impl TextHit {
    fn ready(&self) -> Option<&ReadyPlan> {
        match &*self.plan {
            TextPlan::Ready(ready) => Some(ready),
            TextPlan::Seen | TextPlan::Refused { .. } => None,
        }
    }

    /// Its statement.
    pub fn statement(&self) -> Option<Arc<Statement>> {
        self.ready().map(|ready| Arc::clone(&ready.statement))
    }

    /// Its plan.
    pub fn cached(&self) -> Option<&CachedPlan> {
        self.ready().map(|ready| &ready.cached)
    }

    /// The same for the statement's execution.
    pub fn into_request(self, text: Bytes) -> Request {
        Request { text, params: self.params, planned: Some(self.plan), ..Request::default() }
    }
}

impl Session {
    /// What is known of a text, if that is enough to run it.
    pub fn text_plan(&mut self, text: &[u8]) -> Option<TextHit> {
        let settings = self.settings();
        let readable = matches!(settings.client_charset, Charset::Utf8mb4 | Charset::Utf8mb3);
        if !settings.text_plan_cache || !readable {
            return None;
        }
        let found = normalize::parameters(text, settings.parse)?;
        let key = self.text_key(&found);
        let texts = Arc::clone(&self.instance.texts);
        let schema_version = self.schema().version();
        let statistics = self.instance.statistics.generation();
        let plan = match texts.cache.get(key.as_slice()) {
            None => {
                texts.cache.insert(key, Arc::new(TextPlan::Seen));
                return None;
            }
            Some(plan) => plan,
        };
        let holds = match &*plan {
            TextPlan::Seen => false,
            TextPlan::Refused { schema_version: schema, statistics: known } => {
                if *schema == schema_version && *known == statistics {
                    return None;
                }
                false
            }
            TextPlan::Ready(ready) => {
                let (database, open) = (self.database.as_deref(), self.open.is_some());
                ready.cached.key.holds_under((schema_version, statistics), database, &settings, open)
            }
        };
        if holds {
            return Some(TextHit { plan, params: found.values });
        }
        let made = match self.plan_text(&found) {
            Some(ready) => TextPlan::Ready(ready),
            None => TextPlan::Refused { schema_version, statistics },
        };
        let is_ready = matches!(made, TextPlan::Ready(_));
        let plan = Arc::new(made);
        texts.cache.insert(key, Arc::clone(&plan));
        is_ready.then_some(TextHit { plan, params: found.values })
    }

    /// The text and what else tells plans of it apart.
    fn text_key(&self, found: &Parameters) -> Vec<u8> {
        let settings = self.settings();
        let mut key = found.text.clone();
        key.push(0);
        key.extend(found.values.iter().map(|value| u8::from(matches!(value, Datum::Int(_)))));
        key.push(2 + u8::from(self.open.is_some()));
        key.extend_from_slice(&settings.connection_collation.id().to_le_bytes());
        let parse = settings.parse;
        key.extend(
            [parse.ansi_quotes, parse.no_backslash_escapes, parse.pipes_as_concat, parse.high_not_precedence]
                .map(u8::from),
        );
        key.push(u8::from(parse.ignore_space));
        key.extend_from_slice(self.database.as_deref().unwrap_or_default().as_bytes());
        key
    }

    /// Parses and plans a text with parameters; `None` if its values should decide.
    fn plan_text(&mut self, found: &Parameters) -> Option<ReadyPlan> {
        let parsed = parse_one(&found.text, self.settings().parse).ok()?;
        let with_plan = matches!(
            parsed.statement,
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        );
        let into = matches!(&parsed.statement, Statement::Query(query) if query.into.is_some());
        if !with_plan || into || parsed.params != found.values.len() {
            return None;
        }
        let txn = StatementTxn::autocommit(self.instance.client.clone(), TxnMode::Optimistic, true);
        let request = Request { params: found.values.clone(), ..Request::default() };
        let ctx = self.context(txn, &request, false, CancellationToken::new());
        let plan = Arc::new(super::glue::plan(&parsed.statement, parsed.params, &ctx).ok()?);
        if !plan.cacheable || !is_sure(&plan) {
            return None;
        }
        let cached = CachedPlan::new(&plan, &ctx, self.open.is_some());
        Some(ReadyPlan { statement: Arc::new(parsed.statement), cached })
    }

    /// The plan of a text that was not parsed, if it still holds.
    pub(super) fn planned(
        &self,
        request: &Request,
        ctx: &crate::context::StatementContext,
    ) -> Option<Arc<Plan>> {
        let TextPlan::Ready(ready) = request.planned.as_deref()? else { return None };
        let holds = ready.cached.key == PlanKey::of(ctx, self.open.is_some())
            && ready.cached.plan.accepts(&ctx.eval.params);
        holds.then(|| Arc::clone(&ready.cached.plan))
    }

    /// A plan was found that was made before: `@@last_plan_from_cache` of the next statement.
    pub(super) fn note_cached_plan(&self) {
        self.state.plan_from_cache.store(true, Ordering::Relaxed);
    }
}

/// Whether no other values of the parameters could ask for another plan.
fn is_sure(plan: &Plan) -> bool {
    plan.subqueries.is_empty()
        && match &plan.body {
            PlanBody::Query(query) => is_keyed(query),
            PlanBody::Insert(insert) => matches!(insert.source, InsertSource::Values(_)),
            PlanBody::Update(update) => update.targets.len() == 1 && is_keyed(&update.reader),
            PlanBody::Delete(delete) => delete.targets.len() == 1 && is_keyed(&delete.reader),
            PlanBody::Explain(_) => false,
        }
}

/// Whether all rows come from points or a range of the rows' own keys.
fn is_keyed(plan: &PhysicalPlan) -> bool {
    match &plan.node {
        PhysicalNode::PointGet(_) | PhysicalNode::BatchPointGet(_) => true,
        PhysicalNode::TableReader(reader) => !reader.conditions.is_full() && reader.filter.is_empty(),
        PhysicalNode::Filter { input, .. }
        | PhysicalNode::Project { input, .. }
        | PhysicalNode::Sort { input, .. }
        | PhysicalNode::Limit { input, .. } => is_keyed(input),
        PhysicalNode::Aggregate(aggregate) => is_keyed(&aggregate.input),
        _ => false,
    }
}
