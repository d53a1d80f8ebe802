// btf: ERROR: resolve_btfids: malformed prototype of kfunc bpf_malformed_prototype
#[link_section = ".BTF_kfuncs"]
#[used(compiler)]
static TEXT: [u8; 36] = *b"void\0bpf_malformed_prototype\0u32\0how";
