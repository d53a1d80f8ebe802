// btf: ERROR: resolve_btfids: malformed prototype of kfunc bpf_not_an_identifier
#[link_section = ".BTF_kfuncs"]
#[used(compiler)]
static TEXT: [u8; 39] = *b"void\0bpf_not_an_identifier\0u32\0r#type\0\0";
