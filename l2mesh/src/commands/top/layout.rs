//! How many lines each part of the screen gets.

/// Peers, networks, MAC addresses, events.
pub(super) const PARTS: usize = 4;
/// With fewer lines for a part nothing can be seen in it.
const LEAST: usize = 3;

/// Lines of each part on a screen of so many, of which the first and the last are taken. `wants` is what would show all of it. The
/// part `focus` comes first; what nobody wants gets the last one. Where there is no room for all, only `focus` is there.
pub(super) fn heights(screen: usize, wants: [usize; PARTS], focus: usize) -> [usize; PARTS] {
    let room = screen.saturating_sub(2);
    let mut heights = [0; PARTS];
    if room < LEAST * PARTS {
        heights[focus] = room;
        return heights;
    }
    heights = wants.map(|wanted| wanted.min(LEAST));
    let mut left = room - heights.iter().sum::<usize>();
    let order = [focus].into_iter().chain((0..PARTS).filter(|&part| part != focus));
    for part in order {
        let more = left.min(wants[part] - heights[part]);
        heights[part] += more;
        left -= more;
    }
    heights[PARTS - 1] += left;
    heights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_screen_is_filled(screen in 0_usize..200, wants in prop::array::uniform4(2_usize..300), focus in 0..PARTS) {
            let heights = heights(screen, wants, focus);
            prop_assert_eq!(heights.iter().sum::<usize>(), screen.saturating_sub(2));
            if screen >= 14 {
                prop_assert!(heights.iter().zip(wants).all(|(&height, wanted)| height >= wanted.min(LEAST)));
            }
        }
    }

    #[test]
    fn who_gets_what() {
        assert_eq!(heights(24, [4, 3, 5, 9], 0), [4, 3, 5, 10], "all fits, events get the rest");
        assert_eq!(heights(24, [30, 3, 5, 9], 0), [13, 3, 3, 3]);
        assert_eq!(heights(24, [30, 3, 5, 9], 3), [7, 3, 3, 9]);
        assert_eq!(heights(10, [30, 3, 5, 9], 2), [0, 0, 8, 0]);
        assert_eq!(heights(1, [30, 3, 5, 9], 2), [0; 4]);
    }
}
