//! Byte sizes as people write them: `4k`, `1M`, `512`.

/// Parses a number of bytes with an optional suffix: `k`, `M`, `G`, `T` (powers of 1024; case and a trailing `iB` or `B` do
/// not matter) or `s` (512-byte sectors). Errors say what was wrong.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("'{text}' is not a size, such as 4096, 4k or 1M"))?;
    let suffix = suffix.to_ascii_lowercase();
    let unit = match suffix.strip_suffix("ib").or(suffix.strip_suffix('b')).unwrap_or(&suffix) {
        "" => 1,
        "s" => 512,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1u64 << 40,
        _ => return Err(format!("'{suffix}' is not a unit; use k, M, G, T or s (sectors)")),
    };
    number.checked_mul(unit).ok_or_else(|| format!("'{text}' does not fit 64 bits"))
}

/// Like [`parse`], for sizes that must be at least one byte and fit 32 bits.
pub(crate) fn parse_u32(text: &str) -> Result<u32, String> {
    match u32::try_from(parse(text)?) {
        Ok(0) => Err("must not be 0".into()),
        Ok(size) => Ok(size),
        Err(_) => Err(format!("'{text}' is too large")),
    }
}

#[cfg(test)]
mod tests;
