//! Congestion marks and tunnels (RFC 6040), as Linux does it: the two ECN bits of the TOS octet or traffic class.

/// The ECN bits (RFC 3168 section 5).
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer octet for a packet of `inner`: DSCP `dscp` (in its place), ECN copied. A mark on the inner packet stays there and is
/// sent as ECT(0), so that marks made on the way can be told (RFC 3168 section 9.1.1; `INET_ECN_encapsulate` in
/// `include/net/inet_ecn.h`).
#[inline(always)]
#[must_use]
pub const fn outer_tos(dscp: u8, inner: u8) -> u8 {
    let ecn = match inner & MASK {
        CE => ECT_0,
        other => other,
    };
    dscp & !MASK | ecn
}

/// The outer octet has a mark that a packet whose ends know none of it cannot carry: it must be dropped (RFC 6040 section
/// 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmarkable;

/// What the inner octet becomes, `None` if it stays (RFC 6040 section 4.2; `__INET_ECN_decapsulate`).
///
/// # Errors
/// [`Unmarkable`]: CE outside, not ECN capable inside.
#[inline(always)]
pub const fn inner_tos(outer: u8, inner: u8) -> Result<Option<u8>, Unmarkable> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => Err(Unmarkable),
        (CE, ECT_0 | ECT_1) => Ok(Some(inner | CE)),
        (ECT_1, ECT_0) => Ok(Some(inner & !MASK | ECT_1)),
        _ => Ok(None),
    }
}

/// True if an outer octet can change anything inside.
#[inline(always)]
#[must_use]
pub const fn matters(outer: u8) -> bool {
    outer & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 6040 section 4.2, rows inner, columns outer in the order Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn the_table_of_rfc_6040() {
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), Err(Unmarkable)]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE), Ok(CE), Ok(CE), Ok(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in order.into_iter().zip(row) {
                for dscp in [0, 0xb8, 0xfc] {
                    let found = inner_tos(0x48 | outer, dscp | inner).map(|new| new.unwrap_or(dscp | inner));
                    assert_eq!(found, expected.map(|ecn| dscp | ecn), "outer {outer:02b}, inner {inner:02b}");
                    let stays = found == Ok(dscp | inner);
                    assert!(matters(outer) || stays, "outer {outer:02b}, inner {inner:02b}");
                }
            }
        }
    }

    #[test]
    fn a_mark_inside_is_not_one_outside() {
        for (inner, outer) in [(NOT_ECT, NOT_ECT), (ECT_0, ECT_0), (ECT_1, ECT_1), (CE, ECT_0)] {
            assert_eq!(outer_tos(0xb8, 0x48 | inner), 0xb8 | outer);
        }
    }
}
