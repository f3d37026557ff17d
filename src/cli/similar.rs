//! Finds the name that a misspelt word probably means.

/// Returns the name that `word` probably means: one that it is a prefix of, or one that differs by a few typing
/// errors.
pub(super) fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips = |name: &str| match name.strip_prefix(word) {
        Some(_) if word.len() >= 3 => 0,
        _ => distance(word.as_bytes(), name.as_bytes()),
    };
    let (slips, name) = names.map(|name| (slips(name), name)).min_by_key(|(slips, _)| *slips)?;
    let allowed = if name.len() < 6 { 1 } else { 2 };
    // `rnu` differs from `run` by one swap. A single letter would resemble every short name.
    (slips <= allowed && slips < word.len().max(1) && word.len() > 1).then_some(name)
}

/// Returns the number of bytes to insert, delete, replace, or swap with their neighbour to turn one text into the
/// other (optimal string alignment). Returns `usize::MAX` if the lengths differ by more than two.
pub(super) fn distance(a: &[u8], b: &[u8]) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut best = at(&row, j) + usize::from(x != y);
            best = best.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}
