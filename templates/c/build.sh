# Makes service.wasm: a core module, and behind it the types of its component, of which Sampan makes one.
# After a change of wit/world.wit `wasm-tools component embed` writes those types anew:
#   printf '\0asm\1\0\0\0' | wasm-tools component embed --world service wit - | tail -c +9 > types.bin
set -e
zig=$(command -v zig || echo "python3 -m ziglang")
$zig cc -target wasm32-wasi -mexec-model=reactor -Wl,-z,stack-size=131072 -Os -s \
    -Wall -Wextra -o service.core.tmp service.c
cat types.bin >> service.core.tmp
mv service.core.tmp service.wasm
