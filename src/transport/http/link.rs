//! How a page of a list names the next one: `Link: <PATH?after=N&limit=M>; rel="next"` (RFC 8288).

use hyper::{HeaderMap, header::LINK};

const NEXT: &str = "rel=\"next\"";

/// The header of a page of this path, if the page after it comes after `next`.
pub(super) fn next_link(path: &str, next: u64, limit: usize) -> String {
    format!("<{path}?after={next}&limit={limit}>; {NEXT}")
}

/// What the next page comes after, as the headers say; none if they name no next page.
pub(super) fn next_page(headers: &HeaderMap) -> Option<u64> {
    for value in headers.get_all(LINK) {
        let Ok(text) = value.to_str() else {
            continue;
        };
        // No link of this API has a comma in it.
        for link in text.split(',') {
            let Some((target, parameters)) = link.split_once('>') else {
                continue;
            };
            if parameters.split(';').any(|part| part.trim() == NEXT) {
                let (_, query) = target.split_once('?')?;
                let after = query
                    .split('&')
                    .find_map(|part| part.strip_prefix("after="));
                return after?.parse().ok();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn next_of(links: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for link in links {
            headers.append(LINK, HeaderValue::from_str(link).unwrap());
        }
        next_page(&headers)
    }

    #[test]
    fn the_next_page_is_found_among_other_links() {
        let link = next_link("/api/v1/jobs", 17, 100);
        assert_eq!(next_of(&[&link]), Some(17));
        assert_eq!(next_of(&["</a?after=1>; rel=\"prev\"", &link]), Some(17));
        let both = format!("</a?after=1>; rel=\"first\", {link}");
        assert_eq!(next_of(&[&both]), Some(17));
        assert_eq!(next_of(&[]), None);
        assert_eq!(next_of(&["</a?after=1>; rel=\"prev\""]), None);
        assert_eq!(next_of(&["</a>; rel=\"next\"", "x", "<;>"]), None);
        assert_eq!(next_of(&["</a?after=-1>; rel=\"next\""]), None);
    }
}
