//! Aggregates over the rows (1, 2, 3.50, 1.5, 'a'), (2, 3, 4.25, 2.5, 'B'), NULLs, (3, 3, 1.25, 1.5, 'a'), with the values that a real
//! MySQL gave: in one go, and as partial results that are merged.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion_expr::EmitTo;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use rutile_expr::agg::{self, Aggregate, AggregateCall};
use rutile_expr::physical::PhysicalExpression;
use rutile_expr::types::format::to_text;
use rutile_expr::{Collation, Datum, Decimal, EvalContext, Expr, FieldType, MysqlType, array};

fn types() -> Vec<FieldType> {
    vec![
        FieldType::new(MysqlType::Long),
        FieldType::bigint_unsigned(),
        FieldType::decimal(10, 2),
        FieldType::double(),
        FieldType::varchar(10, Collation::DEFAULT),
    ]
}

fn batch() -> RecordBatch {
    let row = |i: i64, b: u64, d: &str, f: f64, s: &str| {
        vec![
            Datum::Int(i),
            Datum::UInt(b),
            Datum::Decimal(Decimal::parse(d).unwrap()),
            Datum::Double(f),
            Datum::from(s),
        ]
    };
    let rows = [
        row(1, 2, "3.50", 1.5, "a"),
        row(2, 3, "4.25", 2.5, "B"),
        vec![Datum::Null; 5],
        row(3, 3, "1.25", 1.5, "a"),
    ];
    let types = types();
    let columns: Vec<ArrayRef> = types
        .iter()
        .enumerate()
        .map(|(c, t)| array::array_of(t, rows.iter().map(|r| &r[c])).unwrap())
        .collect();
    let fields: Vec<_> = types.iter().zip(["i", "b", "d", "f", "s"]).map(|(t, n)| t.arrow_field(n)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn column(name: &str) -> Expr {
    let index = "ibdfs".find(name).unwrap();
    Expr::column(index, name, types()[index].clone())
}

fn call(name: &str, args: &str, distinct: bool) -> AggregateCall {
    let args = args.chars().map(|c| column(&c.to_string())).collect();
    AggregateCall { name: name.into(), args, distinct, ..AggregateCall::default() }
}

fn build(aggregate: &Aggregate, ctx: &Arc<EvalContext>) -> AggregateFunctionExpr {
    let args = aggregate.args.iter().map(|a| PhysicalExpression::value(a.clone(), ctx)).collect();
    let builder = AggregateExprBuilder::new(aggregate.udaf.clone(), args).schema(batch().schema()).alias("x");
    builder.with_distinct(aggregate.distinct).build().unwrap()
}

fn inputs(function: &AggregateFunctionExpr, batch: &RecordBatch) -> Vec<ArrayRef> {
    let rows = batch.num_rows();
    function.expressions().iter().map(|e| e.evaluate(batch).unwrap().into_array(rows).unwrap()).collect()
}

fn show(array: &dyn Array, field_type: &FieldType) -> String {
    assert_eq!(array.data_type(), &field_type.arrow());
    let value = array::datum_at(array, field_type, 0);
    if value.is_null() { "NULL".into() } else { to_text(&value, field_type) }
}

/// The result over the batch: whole, merged from two partial results, and through the grouped form; all must agree.
fn run(call: AggregateCall) -> String {
    let ctx = Arc::new(EvalContext::default());
    let aggregate = agg::resolve(&ctx, call).unwrap();
    let function = build(&aggregate, &ctx);
    assert_eq!(function.field().data_type(), &aggregate.field_type.arrow());
    let batch = batch();
    let scalar =
        |value: datafusion_common::ScalarValue| show(&value.to_array().unwrap(), &aggregate.field_type);

    let mut whole = function.create_accumulator().unwrap();
    whole.update_batch(&inputs(&function, &batch)).unwrap();
    let result = scalar(whole.evaluate().unwrap());

    let mut merged = function.create_accumulator().unwrap();
    for part in [batch.slice(0, 2), batch.slice(2, 2)] {
        let mut partial = function.create_accumulator().unwrap();
        partial.update_batch(&inputs(&function, &part)).unwrap();
        let state: Vec<ArrayRef> =
            partial.state().unwrap().into_iter().map(|s| s.to_array().unwrap()).collect();
        for (field, array) in function.state_fields().unwrap().iter().zip(&state) {
            assert_eq!(field.data_type(), array.data_type());
        }
        merged.merge_batch(&state).unwrap();
    }
    assert_eq!(scalar(merged.evaluate().unwrap()), result);

    if function.groups_accumulator_supported() {
        let mut grouped = function.create_groups_accumulator().unwrap();
        grouped.update_batch(&inputs(&function, &batch), &[1, 1, 1, 1], None, 2).unwrap();
        let array = grouped.evaluate(EmitTo::All).unwrap();
        assert_eq!(show(&array.slice(1, 1), &aggregate.field_type), result);
    }
    let mut empty = function.create_accumulator().unwrap();
    let nothing = if aggregate.empty.is_null() {
        "NULL".into()
    } else {
        to_text(&aggregate.empty, &aggregate.field_type)
    };
    assert_eq!(scalar(empty.evaluate().unwrap()), nothing);
    result
}

#[test]
fn sums_and_averages_keep_mysql_types() {
    assert_eq!(run(call("sum", "i", false)), "6");
    assert_eq!(run(call("avg", "i", false)), "2.0000");
    assert_eq!(run(call("sum", "b", false)), "8");
    assert_eq!(run(call("avg", "b", false)), "2.6667");
    assert_eq!(run(call("sum", "d", false)), "9.00");
    assert_eq!(run(call("avg", "d", false)), "3.000000");
    assert_eq!(run(call("sum", "f", false)), "5.5");
    assert_eq!(run(call("avg", "f", false)), "1.8333333333333333");
    assert_eq!(run(call("sum", "b", true)), "5");
    assert_eq!(run(call("avg", "d", true)), "3.000000");
    let ctx = Arc::new(EvalContext::default());
    let type_of = |name, args| agg::resolve(&ctx, call(name, args, false)).unwrap().field_type.sql_name();
    assert_eq!(type_of("sum", "i"), "decimal(32,0)");
    assert_eq!(type_of("avg", "i"), "decimal(14,4)");
    assert_eq!(type_of("sum", "b"), "decimal(42,0)");
    assert_eq!(type_of("sum", "d"), "decimal(32,2)");
    assert_eq!(type_of("avg", "d"), "decimal(14,6)");
}

#[test]
fn counts_extremes_and_deviations() {
    assert_eq!(run(call("count", "", false)), "4");
    assert_eq!(run(call("count", "i", false)), "3");
    assert_eq!(run(call("count", "s", true)), "2");
    assert_eq!(run(call("count", "ib", true)), "3");
    assert_eq!(run(call("min", "s", false)), "a");
    assert_eq!(run(call("max", "s", false)), "B");
    assert_eq!(run(call("max", "i", false)), "3");
    assert_eq!(run(call("max", "d", false)), "4.25");
    assert_eq!(run(call("std", "i", false)), "0.816496580927726");
    assert_eq!(run(call("var_samp", "d", false)), "2.4375");
    assert_eq!(run(call("variance", "i", false)), "0.6666666666666666");
    assert_eq!(run(call("stddev_samp", "f", false)), "0.5773502691896257");
    assert_eq!(run(call("bit_and", "i", false)), "0");
    assert_eq!(run(call("bit_or", "i", false)), "3");
    assert_eq!(run(call("bit_xor", "i", false)), "0");
}

#[test]
fn group_concat_orders_and_separates() {
    assert_eq!(run(call("group_concat", "s", false)), "a,B,a");
    let ordered = AggregateCall {
        order_by: vec![(column("s"), true)],
        separator: Some("-".into()),
        ..call("group_concat", "s", true)
    };
    assert_eq!(run(ordered), "B-a");
    let by_number = AggregateCall { order_by: vec![(column("i"), true)], ..call("group_concat", "i", false) };
    assert_eq!(run(by_number), "3,2,1");
}
