//! One version of a model while its values are written.

use std::{collections::BTreeMap, sync::Arc};

use super::{Unfinished, files::NewFile, state, stored::FileModel};
use crate::{
    parameters::{
        BlockBuffer, BlockError, BlockWriter, Digest, Encoding, Form, GROUP, Layout, checked,
        encode_block, safetensors::SafetensorsError,
    },
    store::{ModelWriter, StoreError, StoredModel},
    strategy::StrategyState,
};

pub(super) struct Writer {
    plain: NewFile,
    sent: Option<Sent>,
    /// What has been written, by its beginning.
    written: BTreeMap<usize, Written>,
    len: usize,
    /// Behind its files: they close before it is removed.
    next: Unfinished,
}

struct Written {
    len: usize,
    plain: Digest,
    /// Of the encoded values, and of their scales.
    sent: Option<[Digest; 2]>,
}

/// The file in the encoding that workers get.
struct Sent {
    file: NewFile,
    values: BlockBuffer,
    scales: BlockBuffer,
    /// The first value that has no form in the encoding: where, and in which tensor.
    unfit: Option<(usize, String)>,
}

impl Writer {
    pub fn begin(
        next: Unfinished,
        layout: &Arc<Layout>,
        encoding: Encoding,
    ) -> Result<Self, StoreError> {
        let create = |name: &str, encoding| {
            let form = Form::new(encoding, layout.clone());
            NewFile::create(next.folder(), next.path.join(name), form)
        };
        let sent = match encoding {
            Encoding::F32 => None,
            Encoding::F16 | Encoding::Bf16 | Encoding::Int8 => Some(Sent {
                file: create("sent.safetensors", encoding)?,
                values: BlockBuffer::default(),
                scales: BlockBuffer::default(),
                unfit: None,
            }),
            other => {
                let detail = format!("a model can't be sent as {other}");
                return Err(StoreError::Encoding(detail));
            }
        };
        Ok(Self {
            plain: create("model.safetensors", Encoding::F32)?,
            sent,
            written: BTreeMap::new(),
            len: layout.len(),
            next,
        })
    }

    /// Whether none of a block's values has been written before.
    fn check_new(&self, offset: usize, len: usize) -> Result<(), BlockError> {
        let before = self.written.range(..offset + len).next_back();
        match before {
            Some((start, written)) if start + written.len > offset => {
                let detail = format!("values from {offset} on are written a second time");
                Err(BlockError::Unwritable(detail))
            }
            _ => Ok(()),
        }
    }
}

impl BlockWriter for Writer {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        checked(offset, block.len(), self.len)?;
        if block.is_empty() {
            return Ok(());
        }
        self.check_new(offset, block.len())?;
        let folder = self.next.folder();
        let sent = match &mut self.sent {
            Some(sent) => {
                let (file, [values, scales]) = sent.encode(offset, block)?;
                let base = scales_bytes(file.form(), self.len);
                let size = values.len() / block.len();
                file.write(folder, base + (size * offset) as u64, values)?;
                if !scales.is_empty() {
                    file.write(folder, 4 * (offset / GROUP) as u64, scales)?;
                }
                Some([Digest::of(values), Digest::of(scales)])
            }
            None => None,
        };
        let bytes: &[u8] = bytemuck::cast_slice(block);
        self.plain.write(folder, 4 * offset as u64, bytes)?;
        let written = Written {
            len: block.len(),
            plain: Digest::of(bytes),
            sent,
        };
        self.written.insert(offset, written);
        Ok(())
    }
}

impl Sent {
    /// A block's values and, for int8, their scales.
    fn encode(
        &mut self,
        offset: usize,
        block: &[f32],
    ) -> Result<(&NewFile, [&[u8]; 2]), BlockError> {
        let form = self.file.form();
        let (encoding, len) = (form.encoding(), form.layout().len());
        let end = offset + block.len();
        let groups = match encoding {
            Encoding::Int8 => block.len().div_ceil(GROUP),
            _ => 0,
        };
        let cuts = |place: usize| !place.is_multiple_of(GROUP);
        if groups > 0 && (cuts(offset) || (cuts(end) && end != len)) {
            let detail = format!("a block of {offset}..{end} cuts a group of {GROUP} values");
            return Err(BlockError::Unwritable(detail));
        }
        let values = self.values.bytes(size_of_value(encoding) * block.len());
        let scales = self.scales.bytes(4 * groups);
        let fits = encode_block(encoding, block, scales, values);
        if !fits && self.unfit.as_ref().is_none_or(|(first, _)| offset < *first) {
            self.unfit = Some(unfit(form, offset, block));
        }
        Ok((&self.file, [values, scales]))
    }
}

/// Where the first value of a block that has no form in the encoding stands, and in which tensor.
fn unfit(form: &Form, offset: usize, block: &[f32]) -> (usize, String) {
    let encoding = form.encoding();
    let (mut value, mut scale) = (BlockBuffer::default(), BlockBuffer::default());
    let value = value.bytes(size_of_value(encoding));
    let scale = scale.bytes(4);
    let fits = |number: &f32| encode_block(encoding, std::slice::from_ref(number), scale, value);
    let first = block.iter().map(fits).position(|fits| !fits);
    let place = offset + first.unwrap_or_default();
    let tensors = form.layout().tensors();
    let tensor = tensors.iter().find(|spec| spec.range().contains(&place));
    let name = tensor.map(|spec| spec.name.clone()).unwrap_or_default();
    (place, name)
}

fn size_of_value(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Int8 => 1,
        Encoding::F16 | Encoding::Bf16 => 2,
        _ => 4,
    }
}

/// Bytes of the scales, which stand before the values.
fn scales_bytes(form: &Form, len: usize) -> u64 {
    form.bytes() - (size_of_value(form.encoding()) * len) as u64
}

impl ModelWriter for Writer {
    fn publish(self: Box<Self>, state: &StrategyState) -> Result<Arc<dyn StoredModel>, StoreError> {
        let Self {
            plain,
            sent,
            written,
            len,
            next,
        } = *self;
        let missing = len - written.values().map(|block| block.len).sum::<usize>();
        if missing > 0 {
            return Err(StoreError::Incomplete { missing, len });
        }
        if let Some((_, name)) = sent.as_ref().and_then(|sent| sent.unfit.clone()) {
            let error = SafetensorsError::NotFinite { name };
            return Err(StoreError::Encoding(error.to_string()));
        }
        state::write(next.folder(), &next.path, state)?;
        let blocks = || written.values();
        let plain = plain.finish(blocks().map(|block| (block.plain, 4 * block.len as u64)))?;
        let sent = match sent {
            Some(Sent { file, .. }) => {
                let encoding = file.form().encoding();
                let size = size_of_value(encoding);
                let encoded = || blocks().filter_map(|block| Some((block.sent?, block.len)));
                let scales = encoded()
                    .filter(|_| encoding == Encoding::Int8)
                    .map(|([_, scales], len)| (scales, 4 * len.div_ceil(GROUP) as u64));
                let values = encoded().map(|([values, _], len)| (values, (size * len) as u64));
                Some(file.finish(scales.chain(values))?)
            }
            None => None,
        };
        let place = next.publish()?;
        let plain = Arc::new(plain.place(&place));
        let sent = match sent {
            Some(sent) => Arc::new(sent.place(&place)),
            None => plain.clone(),
        };
        Ok(Arc::new(FileModel::new(plain, sent)))
    }
}
