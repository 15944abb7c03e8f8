//! What the products of integers ask of an instruction set.

/// 32-bit words of a line: what sixteen columns have side by side.
pub(super) const LINE: usize = 16;

/// One line of a panel.
pub(super) type Line = [u32; LINE];

/// A piece of work written once for every instruction set.
pub(super) trait Work {
    /// The work; `#[inline(always)]`, so that it is compiled with the instruction set of `dots`.
    fn run<D: Dots>(self, dots: D);
}

/// Dots of four 8-bit integers at a time in sixteen columns. A value is the proof that the machine has them.
pub(super) trait Dots: Copy + Send + Sync {
    /// Four weights in each of sixteen columns.
    type Weights: Copy;
    /// Sixteen 32-bit sums.
    type Sums: Copy;
    /// Sixteen scales.
    type Scales: Copy;
    /// Rows whose sums for two lines of columns fit the registers.
    const ROWS: usize;

    /// Runs `work` compiled for this instruction set.
    fn vectorize<W: Work>(self, work: W);

    /// Asks for what is `ahead` words after `line`; it need not exist.
    fn prefetch(self, line: &Line, ahead: usize);
    /// Four bytes of each column.
    fn bytes(self, line: &Line) -> Self::Weights;
    /// Four nibbles of each column from the lower halves of the bytes, and four from the upper ones; they are
    /// stored with 8 added.
    fn nibbles(self, line: &Line) -> [Self::Weights; 2];
    /// Where the sums of a group begin, if `bias` was added to each stored weight and the group's activations
    /// add up to `x_sum`: instruction sets that multiply what is stored start at `−bias · x_sum`.
    fn start(self, bias: i32, x_sum: i32) -> Self::Sums;
    /// `sums + w · x` over four inputs; `x` is four signed bytes, the first in the lowest.
    fn add(self, sums: Self::Sums, weights: Self::Weights, x: u32) -> Self::Sums;
    /// Scales that are f32.
    fn scales(self, line: &Line) -> Self::Scales;
    /// Scales that are bfloat16: of sixteen columns in the lower halves, of the next sixteen in the upper ones.
    fn half_scales(self, line: &Line) -> [Self::Scales; 2];
    /// `to += (dots · x_scale) · scales`, the last product and the sum rounded as one.
    fn add_scaled(self, to: &mut [f32; LINE], dots: Self::Sums, x_scale: f32, scales: Self::Scales);
}
