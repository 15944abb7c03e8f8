//! Reads a header's fields in turn and never past its end.

/// Longest string this reads: the largest chat templates are a thousandth of it.
const MAX_TEXT: usize = 1 << 26;

/// A place in a file's bytes. Errors are what is wrong there, without the file's name.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At `at`, which may lie past the end.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next field begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes to the end.
    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| {
            format!(
                "ends in the middle of its header, at byte {}; fetch it again",
                self.bytes.len()
            )
        })?;
        self.at += len;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A 32-bit number.
    pub(super) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number.
    pub(super) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `least` bytes each, so that it cannot ask for more memory than the
    /// file has bytes.
    pub(super) fn count(&mut self, what: &str, least: usize) -> Result<usize, String> {
        let count = self.u64()?;
        let fits = usize::try_from(count).ok().filter(|count| *count <= self.left() / least.max(1));
        fits.ok_or_else(|| {
            format!(
                "says that it has {count} {what}, more than its {} bytes can hold; it is damaged, \
                 fetch it again",
                self.bytes.len()
            )
        })
    }

    /// Text with its length before it.
    pub(super) fn text(&mut self) -> Result<&'a str, String> {
        let at = self.at;
        let len = self.count("bytes of text", 1)?;
        if len > MAX_TEXT {
            return Err(format!("has a text of {len} bytes at byte {at}; {MAX_TEXT} are the most"));
        }
        std::str::from_utf8(self.take(len)?)
            .map_err(|_| format!("has a text at byte {at} that is not UTF-8; it is damaged"))
    }
}
