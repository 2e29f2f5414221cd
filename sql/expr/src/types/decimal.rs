//! Exact decimal numbers. A column has up to 65 digits, 30 of them behind the point; a computed number up to 76.

use std::cmp::Ordering;
use std::fmt;

use ethnum::I256;

use super::field_type::{DECIMAL_DIGITS_MAX, DECIMAL_PRECISION_MAX, DECIMAL_SCALE_MAX};

/// A number `value / 10^scale`. Two decimals are equal when their numbers are, whatever their scales.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    value: I256,
    scale: u8,
}

const POW10_I128_COUNT: usize = 39;

const fn pow10_i128_table() -> [i128; POW10_I128_COUNT] {
    let mut table = [1i128; POW10_I128_COUNT];
    let mut i = 1;
    while i < POW10_I128_COUNT {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
}

/// 10^0 … 10^38.
pub static POW10: [i128; POW10_I128_COUNT] = pow10_i128_table();

/// 10^n as a 256-bit number; n up to 76.
#[must_use]
pub fn pow10(n: u32) -> I256 {
    if n < POW10_I128_COUNT as u32 {
        I256::new(POW10[n as usize])
    } else {
        I256::new(POW10[38]) * I256::new(POW10[(n - 38) as usize])
    }
}

/// Divides, rounding half away from zero.
fn div_round(value: I256, divisor: I256) -> I256 {
    let (quotient, rest) = (value / divisor, value % divisor);
    if rest.abs() >= divisor.abs() - rest.abs() {
        if (value < 0) == (divisor < 0) { quotient + 1 } else { quotient - 1 }
    } else {
        quotient
    }
}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal { value: I256::ZERO, scale: 0 };

    /// `value / 10^scale`.
    #[must_use]
    pub fn new(value: I256, scale: u8) -> Decimal {
        Decimal { value, scale }
    }

    /// `value / 10^scale`.
    #[must_use]
    pub fn from_i128(value: i128, scale: u8) -> Decimal {
        Decimal { value: I256::new(value), scale }
    }

    /// The digits as one integer.
    #[must_use]
    pub fn unscaled(&self) -> I256 {
        self.value
    }

    /// The digits as one integer when they fit.
    #[must_use]
    pub fn unscaled_i128(&self) -> Option<i128> {
        i128::try_from(self.value).ok()
    }

    /// Digits behind the point.
    #[must_use]
    pub fn scale(&self) -> u8 {
        self.scale
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.value == I256::ZERO
    }

    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.value < 0
    }

    /// Significant digits (at least 1).
    #[must_use]
    pub fn digits(&self) -> u32 {
        let value = self.value.abs();
        let mut digits = 1;
        while digits < 77 && value >= pow10(digits) {
            digits += 1;
        }
        digits
    }

    /// The precision a literal of this value has: at least its scale.
    #[must_use]
    pub fn precision(&self) -> u32 {
        self.digits().max(u32::from(self.scale))
    }

    /// Digits in front of the point; 0 when the value is below 1.
    #[must_use]
    pub fn int_digits(&self) -> u32 {
        let digits = self.digits();
        if self.is_zero() { 0 } else { digits.saturating_sub(u32::from(self.scale)) }
    }

    /// The largest value of DECIMAL(precision, scale).
    #[must_use]
    pub fn max(precision: u32, scale: u8) -> Decimal {
        Decimal { value: pow10(precision) - 1, scale }
    }

    /// Does it fit DECIMAL(precision, scale) once it has this scale?
    #[must_use]
    pub fn fits(&self, precision: u32) -> bool {
        self.value.abs() < pow10(precision)
    }

    /// The nearest value with `scale` digits behind the point (half away from zero).
    #[must_use]
    pub fn rescale(&self, scale: u8) -> Decimal {
        match scale.cmp(&self.scale) {
            Ordering::Equal => *self,
            Ordering::Greater => {
                let factor = pow10(u32::from(scale - self.scale));
                let value = self.value.checked_mul(factor).unwrap_or(pow10(76));
                Decimal { value, scale }
            }
            Ordering::Less => {
                Decimal { value: div_round(self.value, pow10(u32::from(self.scale - scale))), scale }
            }
        }
    }

    /// Rounds to `digits` digits behind the point; negative: in front of it. The scale never grows.
    #[must_use]
    pub fn round(&self, digits: i64) -> Decimal {
        self.round_with(digits, div_round)
    }

    /// Cuts to `digits` digits behind the point; negative: in front of it.
    #[must_use]
    pub fn truncate(&self, digits: i64) -> Decimal {
        self.round_with(digits, |value, divisor| value / divisor)
    }

    /// The largest integer not above.
    #[must_use]
    pub fn floor(&self) -> Decimal {
        self.round_with(0, |v, d| if v % d < 0 { v / d - 1 } else { v / d })
    }

    /// The smallest integer not below.
    #[must_use]
    pub fn ceil(&self) -> Decimal {
        self.round_with(0, |v, d| if v % d > 0 { v / d + 1 } else { v / d })
    }

    fn round_with(&self, digits: i64, divide: impl Fn(I256, I256) -> I256) -> Decimal {
        let scale = i64::from(self.scale);
        if digits >= scale {
            return *self;
        }
        let drop = scale - digits;
        if drop > 76 {
            return Decimal::ZERO;
        }
        let value = divide(self.value, pow10(drop as u32));
        if digits >= 0 {
            Decimal { value, scale: digits as u8 }
        } else {
            Decimal { value: value * pow10((-digits) as u32), scale: 0 }
        }
    }

    fn aligned(&self, other: &Decimal) -> (I256, I256, u8) {
        let scale = self.scale.max(other.scale);
        (self.rescale(scale).value, other.rescale(scale).value, scale)
    }

    fn checked(value: Option<I256>, scale: u8) -> Option<Decimal> {
        let mut result = Decimal { value: value?, scale };
        // Fractional digits give way before whole ones do.
        while !result.fits(DECIMAL_DIGITS_MAX) && result.scale > 0 {
            let excess = result.digits().saturating_sub(DECIMAL_DIGITS_MAX).max(1);
            result = result.rescale(result.scale.saturating_sub(excess as u8));
        }
        result.fits(DECIMAL_DIGITS_MAX).then_some(result)
    }

    /// The sum; `None` above 76 digits.
    #[must_use]
    pub fn add(&self, other: &Decimal) -> Option<Decimal> {
        let (a, b, scale) = self.aligned(other);
        Decimal::checked(a.checked_add(b), scale)
    }

    /// The difference; `None` above 76 digits.
    #[must_use]
    pub fn sub(&self, other: &Decimal) -> Option<Decimal> {
        let (a, b, scale) = self.aligned(other);
        Decimal::checked(a.checked_sub(b), scale)
    }

    /// The product, rounded to 30 digits behind the point; `None` above 76 digits.
    #[must_use]
    pub fn mul(&self, other: &Decimal) -> Option<Decimal> {
        let scale = u32::from(self.scale) + u32::from(other.scale);
        if let (Some(a), Some(b)) = (self.unscaled_i128(), other.unscaled_i128())
            && let Some(product) = a.checked_mul(b)
        {
            let product = Decimal { value: I256::new(product), scale: scale as u8 };
            return Some(if scale > u32::from(DECIMAL_SCALE_MAX) {
                product.rescale(DECIMAL_SCALE_MAX)
            } else {
                product
            });
        }
        if let Some(value) = self.value.checked_mul(other.value) {
            let product = Decimal { value, scale: scale as u8 };
            return Decimal::checked(
                Some(product.rescale(scale.min(u32::from(DECIMAL_SCALE_MAX)) as u8).value),
                scale.min(30) as u8,
            );
        }
        let product = to_bigint(self.value) * to_bigint(other.value);
        from_bigint(product, scale, scale.min(u32::from(DECIMAL_SCALE_MAX)))
    }

    /// The quotient with `scale` digits behind the point; `None` for a zero divisor or above 76 digits.
    #[must_use]
    pub fn div(&self, other: &Decimal, scale: u8) -> Option<Decimal> {
        if other.is_zero() {
            return None;
        }
        // value = a / b * 10^(scale + sb - sa)
        let shift = i32::from(scale) + i32::from(other.scale) - i32::from(self.scale);
        if (0..=76).contains(&shift) {
            if let Some(numerator) = self.value.checked_mul(pow10(shift as u32)) {
                return Decimal::checked(Some(div_round(numerator, other.value)), scale);
            }
        } else if shift < 0
            && let Some(divisor) = other.value.checked_mul(pow10((-shift) as u32))
        {
            return Decimal::checked(Some(div_round(self.value, divisor)), scale);
        }
        let ten = num_bigint::BigInt::from(10);
        let numerator = to_bigint(self.value) * ten.pow(shift.max(0) as u32) * 2;
        let divisor = to_bigint(other.value) * ten.pow((-shift).max(0) as u32);
        let doubled: num_bigint::BigInt = numerator / divisor;
        let one = if doubled.sign() == num_bigint::Sign::Minus { -1 } else { 1 };
        from_bigint((doubled + one) / 2, u32::from(scale), u32::from(scale))
    }

    /// The remainder, with the dividend's sign; `None` for a zero divisor.
    #[must_use]
    pub fn rem(&self, other: &Decimal) -> Option<Decimal> {
        if other.is_zero() {
            return None;
        }
        let (a, b, scale) = self.aligned(other);
        Some(Decimal { value: a % b, scale })
    }

    #[must_use]
    pub fn neg(&self) -> Decimal {
        Decimal { value: -self.value, scale: self.scale }
    }

    #[must_use]
    pub fn abs(&self) -> Decimal {
        Decimal { value: self.value.abs(), scale: self.scale }
    }

    /// The nearest integer (half away from zero), clamped to i64; `false` when clamped.
    #[must_use]
    pub fn to_i64(&self) -> (i64, bool) {
        let rounded = self.rescale(0).value;
        match i64::try_from(rounded) {
            Ok(v) => (v, true),
            Err(_) if rounded < 0 => (i64::MIN, false),
            Err(_) => (i64::MAX, false),
        }
    }

    /// The nearest integer (half away from zero), clamped to u64; `false` when clamped.
    #[must_use]
    pub fn to_u64(&self) -> (u64, bool) {
        let rounded = self.rescale(0).value;
        match u64::try_from(rounded) {
            Ok(v) => (v, true),
            Err(_) if rounded < 0 => (0, false),
            Err(_) => (u64::MAX, false),
        }
    }

    /// The nearest double.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        match i64::try_from(self.value) {
            // Both operands are exact, so one division rounds once.
            Ok(v) if v.unsigned_abs() < 1 << 53 && self.scale <= 22 => {
                v as f64 / 10f64.powi(i32::from(self.scale))
            }
            _ => self.to_string().parse().unwrap_or(f64::INFINITY),
        }
    }

    /// Parses the longest valid beginning of `text` (no leading spaces): the number and how many bytes were used.
    /// `None` when it does not begin with a number. Digits beyond the 30th behind the point are rounded away; a number
    /// above 76 digits becomes the largest one of 65.
    #[must_use]
    pub fn parse_prefix(text: &str) -> Option<(Decimal, usize)> {
        let bytes = text.as_bytes();
        let mut at = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
        let negative = bytes.first() == Some(&b'-');
        let digits_from = at;
        let mut digits: Vec<u8> = Vec::new();
        let mut scale: i64 = 0;
        let mut seen_point = false;
        while at < bytes.len() {
            match bytes[at] {
                b @ b'0'..=b'9' => {
                    digits.push(b - b'0');
                    scale += i64::from(seen_point);
                }
                b'.' if !seen_point => seen_point = true,
                _ => break,
            }
            at += 1;
        }
        if digits.is_empty() {
            return None;
        }
        debug_assert!(at > digits_from);
        if let Some((exponent, used)) = parse_exponent(&bytes[at..]) {
            scale -= exponent;
            at += used;
        }
        Some((Decimal::from_digits(&digits, scale, negative), at))
    }

    fn from_digits(digits: &[u8], scale: i64, negative: bool) -> Decimal {
        let first = digits.iter().position(|d| *d != 0).unwrap_or(digits.len());
        let digits = &digits[first..];
        let int_digits = digits.len() as i64 - scale;
        if digits.is_empty() {
            return Decimal { value: I256::ZERO, scale: scale.clamp(0, 30) as u8 };
        }
        let signed = |d: Decimal| if negative { d.neg() } else { d };
        if int_digits > i64::from(DECIMAL_DIGITS_MAX) {
            return signed(Decimal::max(DECIMAL_PRECISION_MAX, 0));
        }
        let keep = scale
            .min(i64::from(DECIMAL_SCALE_MAX))
            .min((i64::from(DECIMAL_PRECISION_MAX) - int_digits).clamp(0, i64::from(DECIMAL_PRECISION_MAX)));
        let used = (int_digits + keep).max(0).min(digits.len() as i64) as usize;
        let mut value = digits[..used].iter().fold(I256::ZERO, |v, d| v * 10 + I256::from(*d));
        if int_digits + keep >= 0 && digits.get(used).is_some_and(|d| *d >= 5) {
            value += 1;
        }
        let result = if keep < 0 {
            Decimal { value: value * pow10((-keep) as u32), scale: 0 }
        } else {
            Decimal { value, scale: keep as u8 }
        };
        signed(result)
    }

    /// Parses a whole text such as a literal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Decimal> {
        Decimal::parse_prefix(text).filter(|(_, used)| *used == text.len()).map(|(value, _)| value)
    }

    /// The decimal that a double's shortest text denotes.
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Decimal> {
        value.is_finite().then(|| Decimal::parse(&format!("{value:e}"))).flatten()
    }
}

/// `e+12` and the like: the exponent and its length in bytes.
fn parse_exponent(bytes: &[u8]) -> Option<(i64, usize)> {
    if !matches!(bytes.first(), Some(b'e' | b'E')) {
        return None;
    }
    let sign_len = usize::from(matches!(bytes.get(1), Some(b'+' | b'-')));
    let digits = bytes[1 + sign_len..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let end = 1 + sign_len + digits;
    let number =
        std::str::from_utf8(&bytes[1 + sign_len..end]).ok()?.parse::<i64>().unwrap_or(100_000).min(100_000);
    Some((if bytes[1] == b'-' { -number } else { number }, end))
}

fn to_bigint(value: I256) -> num_bigint::BigInt {
    num_bigint::BigInt::from_signed_bytes_be(&value.to_be_bytes())
}

/// Rounds `value / 10^from` to scale `to`.
fn from_bigint(value: num_bigint::BigInt, from: u32, to: u32) -> Option<Decimal> {
    let digits = value.magnitude().to_string();
    let negative = value.sign() == num_bigint::Sign::Minus;
    let digits: Vec<u8> = digits.bytes().map(|b| b - b'0').collect();
    if digits.len() as i64 - i64::from(from) > i64::from(DECIMAL_DIGITS_MAX) {
        return None;
    }
    Some(Decimal::from_digits(&digits, i64::from(from), negative).rescale(to as u8))
        .filter(|d| d.fits(DECIMAL_DIGITS_MAX))
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        if self.scale == other.scale {
            return self.value.cmp(&other.value);
        }
        let (a, b, _) = self.aligned(other);
        a.cmp(&b)
    }
}

impl From<i64> for Decimal {
    fn from(v: i64) -> Decimal {
        Decimal { value: I256::from(v), scale: 0 }
    }
}

impl From<u64> for Decimal {
    fn from(v: u64) -> Decimal {
        Decimal { value: I256::from(v), scale: 0 }
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = match i128::try_from(self.value) {
            Ok(v) => v.unsigned_abs().to_string(),
            Err(_) => self.value.abs().to_string(),
        };
        if self.value < 0 {
            f.write_str("-")?;
        }
        if scale == 0 {
            return f.write_str(&digits);
        }
        if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{whole}.{fraction}")
        } else {
            write!(f, "0.{digits:0>scale$}")
        }
    }
}
