//! Draws from a weighted distribution in constant time (Walker's alias method, as Vose builds the table).

/// Draws numbers below the number of weights, each in proportion to its weight.
pub(super) struct AliasTable {
    columns: Vec<Column>,
}

/// One column holds the share of its own number and of one other, which together fill it.
struct Column {
    /// The share of the own number, of 2^32.
    own: u32,
    other: u32,
}

impl AliasTable {
    pub(super) fn new(weights: impl Iterator<Item = u64>) -> Self {
        let weights: Vec<u64> = weights.collect();
        let sum: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        let count = weights.len() as u128;
        // Scaled so that the mean is `sum`: exact, without rounding.
        let mut shares: Vec<u128> = weights.iter().map(|&w| u128::from(w) * count).collect();
        let mut columns: Vec<Column> = (0..weights.len() as u32)
            .map(|other| Column {
                own: u32::MAX,
                other,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&at| shares.get(at).is_some_and(|&share| share < sum));
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            let share = shares.get(poor).copied().unwrap_or_default();
            if let Some(column) = columns.get_mut(poor) {
                column.own = u32::try_from((share << 32) / sum.max(1)).unwrap_or(u32::MAX);
                column.other = rich as u32;
            }
            if let Some(left) = shares.get_mut(rich) {
                *left -= sum - share;
                if *left < sum {
                    large.pop();
                    small.push(rich);
                }
            }
        }
        Self { columns }
    }

    /// Draws a number. `None`: there are no weights.
    #[inline]
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let random = rng.u64(..);
        let at = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let column = self.columns.get(at)?;
        let is_own = (random as u32) <= column.own;
        Some(if is_own { at } else { column.other as usize })
    }
}
