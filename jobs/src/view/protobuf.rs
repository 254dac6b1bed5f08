//! The wire format of protocol buffers, as far as traces need it.
//!
//! A message is a row of fields; a field is its number and wire type as one varint, then a varint,
//! eight bytes, or a length and so many bytes.

/// A message being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Adds a number.
    pub(crate) fn number(mut self, field: u32, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    /// Adds a floating-point number.
    pub(crate) fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, 1);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds a number of eight bytes.
    pub(crate) fn fixed(mut self, field: u32, value: u64) -> Self {
        self.key(field, 1);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// Adds a text.
    pub(crate) fn text(self, field: u32, value: &str) -> Self {
        self.chunk(field, value.as_bytes())
    }

    /// Adds a message.
    pub(crate) fn message(self, field: u32, value: &Message) -> Self {
        self.chunk(field, &value.bytes)
    }

    /// The bytes of the message.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn chunk(mut self, field: u32, bytes: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}
