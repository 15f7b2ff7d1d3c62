//! Lists: one page if a limit is asked for; else the whole list as one JSON array, which is sent page by page. A whole list is
//! never in memory.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequestParts, Query},
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::{future::BoxFuture, stream};
use serde::{Deserialize, Serialize};

use super::answer::malformed;
use crate::transport::{
    OperatorError, Page,
    http::{link::next_link, problem::Problem},
};

/// Entries that are asked for at once for a whole list. The coordinator has a limit of its own.
const PAGE: usize = 1000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Part {
    after: Option<u64>,
    limit: Option<usize>,
}

impl<S: Sync> FromRequestParts<S> for Part {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(part) = Query::<Self>::try_from_uri(&parts.uri).map_err(|_| {
            malformed("after and limit must be whole numbers of at least 0".to_string())
        })?;
        if part.limit == Some(0) {
            return Err(malformed("limit is 0, and must be 1 or more".to_string()));
        }
        Ok(part)
    }
}

/// A page that is being asked for, its entries by number.
pub(super) type Asked<T> = BoxFuture<'static, Result<Page<T, u64>, OperatorError>>;

/// Answers with a part of the list of this path, whose pages `read` gives: after a number, at most this many entries.
pub(super) async fn list<T: Serialize + Send + 'static>(
    path: &str,
    part: Part,
    read: impl Fn(u64, usize) -> Asked<T> + Send + 'static,
) -> Result<Response, Problem> {
    let after = part.after.unwrap_or(0);
    // Before the answer begins: later, an error can only break it off, without a status and a reason.
    let first = read(after, part.limit.unwrap_or(PAGE)).await?;
    let Some(next) = first.next else {
        return Ok(Json(first.entries).into_response());
    };
    if let Some(limit) = part.limit {
        let mut response = Json(first.entries).into_response();
        if let Ok(link) = HeaderValue::try_from(next_link(path, next, limit)) {
            response.headers_mut().insert(header::LINK, link);
        }
        return Ok(response);
    }
    let array = Array {
        read,
        after,
        first: Some(first),
        has_entries: false,
        is_whole: false,
    };
    let body = Body::from_stream(stream::try_unfold(array, Array::next));
    let media_type = [(header::CONTENT_TYPE, "application/json")];
    Ok((media_type, body).into_response())
}

/// A JSON array that is being sent.
struct Array<T, F> {
    read: F,
    /// What the next page comes after.
    after: u64,
    /// The first page, before it is sent.
    first: Option<Page<T, u64>>,
    has_entries: bool,
    is_whole: bool,
}

impl<T: Serialize, F: Fn(u64, usize) -> Asked<T>> Array<T, F> {
    /// The text of the next page.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, axum::BoxError> {
        if self.is_whole {
            return Ok(None);
        }
        let mut text = Vec::new();
        let page = match self.first.take() {
            Some(first) => {
                text.push(b'[');
                first
            }
            None => (self.read)(self.after, PAGE).await?,
        };
        for entry in &page.entries {
            if self.has_entries {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, entry)?;
            self.has_entries = true;
        }
        match page.next {
            // A page that leads back would never end.
            Some(next) if next > self.after => self.after = next,
            _ => {
                text.push(b']');
                self.is_whole = true;
            }
        }
        Ok(Some((text.into(), self)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use futures_util::StreamExt;

    use super::*;
    use crate::report::{Refusal, RefusalKind};

    #[tokio::test]
    async fn of_a_whole_list_one_page_at_a_time_is_read() {
        const PAGES: u64 = 1_000_000_000;
        let read = Arc::new(AtomicU64::new(0));
        let counted = read.clone();
        let part = Part {
            after: None,
            limit: None,
        };
        let page = move |after: u64, _: usize| -> Asked<u64> {
            counted.fetch_add(1, Ordering::SeqCst);
            let next = (after + 1 < PAGES).then_some(after + 1);
            Box::pin(async move { Ok(Page::new(vec![after], next)) })
        };
        let response = list("/list", part, page).await.unwrap();
        let mut pieces = response.into_body().into_data_stream();
        for (count, expected) in (1..).zip(["[0", ",1", ",2"]) {
            let piece = pieces.next().await.unwrap().unwrap();
            assert_eq!(piece, expected.as_bytes());
            assert_eq!(read.load(Ordering::SeqCst), count);
        }
    }

    #[tokio::test]
    async fn a_page_that_can_t_be_read_breaks_the_list_off() {
        let part = Part {
            after: None,
            limit: None,
        };
        let page = move |after: u64, _: usize| -> Asked<u64> {
            Box::pin(async move {
                if after > 0 {
                    let refusal = Refusal::new(RefusalKind::Storage, "no disk");
                    return Err(refusal.into());
                }
                Ok(Page::new(vec![after], Some(1)))
            })
        };
        let response = list("/list", part, page).await.unwrap();
        let mut pieces = response.into_body().into_data_stream();
        assert!(pieces.next().await.unwrap().is_ok());
        assert!(pieces.next().await.unwrap().is_err());
    }
}
