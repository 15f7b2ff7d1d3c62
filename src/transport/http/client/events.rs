//! A job's events, read from server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! Written here, since no crate bounds an event: `eventsource-stream` 0.2.3 keeps a line without an end in memory and searches all
//! of it again for each piece (16 MB in pieces of 16 KiB took it 7.8 s, 32 MB 39 s), and `sse-stream` 0.2.6 has no limit either.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;

use crate::{
    Cause,
    protocol::LoggedEvent,
    transport::{ByteStream, TransportError},
};

/// A job's events as they come. Ends after an error.
pub(super) struct EventStream {
    bytes: Option<ByteStream>,
    parser: Parser,
    ready: VecDeque<LoggedEvent>,
}

impl EventStream {
    /// `limit`: the largest event, in bytes.
    pub(super) fn new(bytes: ByteStream, limit: usize) -> Self {
        Self {
            bytes: Some(bytes),
            parser: Parser::new(limit),
            ready: VecDeque::new(),
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), TransportError> {
        for data in self.parser.push(piece)? {
            let event = serde_json::from_slice(&data)
                .map_err(|error| TransportError::Protocol(Cause::of(error)))?;
            self.ready.push_back(event);
        }
        Ok(())
    }
}

impl Stream for EventStream {
    type Item = Result<LoggedEvent, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(bytes) = &mut self.bytes else {
                return Poll::Ready(None);
            };
            let taken = match ready!(bytes.as_mut().poll_next(context)) {
                None => {
                    self.bytes = None;
                    continue;
                }
                Some(Ok(piece)) => self.take(&piece),
                Some(Err(error)) => Err(TransportError::Unreachable(Cause::of(error))),
            };
            if let Err(error) = taken {
                self.bytes = None;
                // The error ends the stream: what the same piece had before it would come after it.
                self.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

/// Finds the data of events in the pieces of a stream. Only `data` is looked at: the number is in the event, too.
pub(in crate::transport::http) struct Parser {
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Parser {
    /// `limit`: the largest event, in bytes.
    pub(in crate::transport::http) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
        }
    }

    /// The data of the events that end in this piece.
    pub(in crate::transport::http) fn push(
        &mut self,
        piece: &[u8],
    ) -> Result<Vec<Vec<u8>>, TransportError> {
        let mut found = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() + self.data.len() > self.limit {
                let text = "an event is too large".into();
                return Err(TransportError::Protocol(text));
            }
            if part.ends_with(b"\n") {
                found.extend(self.end_line());
            }
        }
        Ok(found)
    }

    /// The data of the event that this line ends, if it does.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return (!data.is_empty()).then_some(data);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            let value = value.strip_prefix(b" ").unwrap_or(value);
            self.data.extend_from_slice(value);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, size: usize) -> Result<Vec<String>, TransportError> {
        let mut parser = Parser::new(64);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            found.extend(parser.push(piece)?);
        }
        let texts = found
            .into_iter()
            .map(|data| String::from_utf8(data).unwrap());
        Ok(texts.collect())
    }

    #[test]
    fn events_are_found_in_pieces_of_any_size() {
        let text = ": hello\n\nid: 1\ndata: {\"a\":1}\n\nid: 2\r\ndata:x\r\ndata: y\r\n\r\n:\n\ndata: cut off\n";
        for size in [1, 2, 7, 1000] {
            assert_eq!(parse(text, size).unwrap(), ["{\"a\":1}", "x\ny"]);
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        assert!(parse(&"x".repeat(100), 10).is_err());
    }
}
