//! Fuzz target of the framer: however a stream is cut into pieces, the same messages come out of it.

use crate::sip::{
    transport::framing::{Frame, Framer, FramingError},
    wire::limits,
};

/// What comes out of a stream that arrives in pieces of these lengths, in turn.
fn frames(stream: &[u8], lengths: &[usize]) -> (Vec<Frame>, Result<bool, FramingError>) {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    let mut lengths = lengths.iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
        rest = after;
        framer.buffer().extend_from_slice(piece);
        loop {
            match framer.frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(framer.buffer().len() <= limits::MESSAGE);
    }
    (frames, Ok(framer.is_partial()))
}

#[test]
fn any_stream_gives_the_same_messages_however_it_is_cut() {
    bolero::check!().with_iterations(5_000).for_each(|input: &[u8]| {
        let Some((first, stream)) = input.split_first() else { return };
        let whole = frames(stream, &[usize::MAX]);
        let given = [usize::from(*first), usize::from(*first % 7), 1];
        for lengths in [&[1][..], &[2], &[3, 1], &given] {
            assert_eq!(frames(stream, lengths), whole, "{lengths:?}");
        }
        let bytes: usize = whole.0.iter().map(|f| if let Frame::Message(m) = f { m.len() } else { 4 }).sum();
        assert!(bytes <= stream.len());
    });
}
