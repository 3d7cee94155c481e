//! Compressed files: which of them a client takes.

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Brotli.
    Brotli,
    /// Gzip.
    Gzip,
}

impl Encoding {
    /// All of them, the smaller first.
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// What ends the name of a file that is compressed so.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// Its name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Of what is there, the one that the client likes best, if not the plain file.
pub(super) fn choose<T: Copy>(
    accepted: &str,
    there: impl Iterator<Item = (Encoding, T)>,
) -> Option<(Encoding, T)> {
    let mut best = None;
    // What a client does not mention it takes plain.
    let mut most = quality(accepted, "identity").unwrap_or(0);
    for (encoding, file) in there {
        let likes = quality(accepted, encoding.name()).or_else(|| quality(accepted, "*"));
        if let Some(likes) = likes.filter(|&likes| likes > most) {
            (best, most) = (Some((encoding, file)), likes);
        }
    }
    best
}

/// How much a client likes an encoding, in thousandths
/// ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3)).
fn quality(accepted: &str, wanted: &str) -> Option<u32> {
    let mut items = accepted.split(',').map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        (name, weight)
    });
    let (_, weight) = items.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    let weight = match weight {
        None => 1.0,
        // What cannot be read is no wish.
        Some(weight) => weight.parse::<f64>().unwrap_or(0.0),
    };
    Some((weight.clamp(0.0, 1.0) * 1000.0) as u32)
}
