//! `& | ^ ~ << >>` and BIT_COUNT, on 64-bit unsigned integers.

use super::registry::{Arg, Entry, ret};
use crate::error::Result;
use crate::expr::{Function, Scope};
use crate::types::Datum;

/// This family's functions.
pub static ENTRIES: &[Entry] = &[
    Entry::fixed(Function::strict("&", and), 2, 2, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict("|", or), 2, 2, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict("^", xor), 2, 2, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict("~", not), 1, 1, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict("<<", shift_left), 2, 2, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict(">>", shift_right), 2, 2, &[Arg::Int], ret::uint),
    Entry::fixed(Function::strict("bit_count", bit_count), 1, 1, &[Arg::Int], ret::int),
];

fn bits(value: &Datum) -> u64 {
    match value {
        Datum::Int(v) => *v as u64,
        Datum::UInt(v) => *v,
        _ => 0,
    }
}

fn and(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(bits(&args[0]) & bits(&args[1])))
}

fn or(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(bits(&args[0]) | bits(&args[1])))
}

fn xor(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(bits(&args[0]) ^ bits(&args[1])))
}

fn not(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::UInt(!bits(&args[0])))
}

fn shift(args: &[Datum], by: fn(u64, u32) -> Option<u64>) -> Result<Datum> {
    let amount = u32::try_from(bits(&args[1])).unwrap_or(64);
    Ok(Datum::UInt(by(bits(&args[0]), amount).unwrap_or(0)))
}

fn shift_left(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    shift(args, u64::checked_shl)
}

fn shift_right(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    shift(args, u64::checked_shr)
}

fn bit_count(_: &Scope<'_>, args: &[Datum]) -> Result<Datum> {
    Ok(Datum::Int(i64::from(bits(&args[0]).count_ones())))
}
