# gemma4: a reference implementation and conformance suite for Gemma 4 26B-A4B. Products go to build/ only.
#
#   make                  build/gemma4-ref and build/gemma4-check
#   make demo             two dumps of a real engine through gemma4-check: one conforms, one does not
#   make checkpoints      the cases' checkpoints as folders and as GGUF (F32, BF16, F16, Q8_0)              (Python)
#   make engine ENGINE=X  dumps every case with engine X of golden/engines, and checks the dumps           (Python)
#   make engines          spec/engines.md, .json and agreement.md from what make engine left in build/engines (Python)
#   make check            all tests, offline, without Python
#   make check-engines    do runs of some cases join what make engines has published, as they should? (Python 3, without packages)
#   make install          programs, library, cases and manual under PREFIX (/usr/local), seen from DESTDIR
#   make uninstall        removes them
#   make dist             one archive with static programs and goldens, for any Linux on this machine's processor
#   make dist-check       makes it and tries it in an empty root
#   make dist-arm64       the same for AArch64, cross-compiled and tried under qemu-user
#   make twin-errors      the worst error of every operator of every SIMD twin: writes spec/twins-errors.md
#   make check-neon       the NEON twin under qemu-user
#   make check-full       two layers at the true dimensions: transformers, reference and twins agree; 3.3 GB of disk
#   make check-long       the case of 4,128 positions: is what it shows shown, do right engines conform, are faulty ones named? minutes
#   make check-whole      all 30 layers, a mistake in one of them, a verdict in 6 GB of memory: what it takes; 50 GB of disk
#   make bench            operators and forward pass at the true dimensions, beside the machine's own limits
#   make bench-check      how long gemma4-check takes for each known mistake, and on two layers at the true dimensions: in forward passes
#   make debug            build/debug/gemma4-ref for a debugger: -O0, scalar operators only (README.md, "Learn the model from it")
#   make debug-test       are the debugger commands of README.md and spec/ right when typed as they stand? needs gdb and lldb
#   make agreement        the reference against every golden, as a table
#   make precision        the reference's own rounding error, against a float64 build of the same source
#   make check-sanitizers the tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make check-warnings   gcc and clang, warnings are errors
#   make check-format     is every C file as clang-format 14 writes it, in lines of at most 100 columns?
#   make check-alloc      memory runs out in every command, at each place that asks for some: one line, status 2, no leak, nothing half written
#   make check-threads    gemma4-twins and a search for a cause under ThreadSanitizer, with four threads; clang, libomp
#   make check-memory     the twins and the fuzzers' inputs under MemorySanitizer; clang
#   make coverage         branch coverage of ref/ and tests/check by the unit tests: writes spec/measured/coverage.txt; clang
#   make reproducible     two builds in different folders: the same bytes? the copies are of the last commit
#   make sameness         the same dumps give the same reports, to the byte: runs, threads, instruction sets, locales, gcc and clang, -O0 and -O3
#   make both-ways        no report depends on the operators: dumps of every EVERY-th run of identify, planted, pairs and honest, judged with each (Python)
#   make both-ways-cases  the same of the dumps that need no Python
#   make fuzz MINUTES=N   every reader under clang's libFuzzer and sanitizers, N minutes each: executions, coverage, what it found
#   make honest           right engines, many kinds, every case: all must conform                          (Python)
#   make planted          transformers with one planted fault each: found at the right tap, and named      (Python)
#   make uncatalogued     faults that are in no catalogue: found at the right tap, and said what they are  (Python)
#   make pairs            two faults at once: both found                                                   (Python)
#   make identify         faults drawn at random: what was planted is said, with its numbers               (Python)
#   make ladder-check     right and faulty engines up the ladder of small checkpoints: no alarm, causes named  (Python)
#   make kill-matrix      every known mistake in a simulated engine: detected, located, named? writes spec/kill-matrix.md
#   make kill-matrix-verify  the same without a change of the page: are the rates reached, and is it the page that is committed?
#   make mutate           is every constant of the checker held by a test? changes each; half an hour on two cores (Python 3, without packages)
#   make wrong-pages      numbers, names and commands of README.md and spec/ made wrong at random: does a test notice each? (Python 3, without packages)
#   make sums             spec/measured/pages.sha256 anew, after a program has written one of the pages in it (the targets that do call it)
#   make honest-reference simulated honest engines, 20 seeds a tier on every case: no alarm in any
#   make golden           the goldens and shipped dumps anew, from transformers                            (Python)
#   make golden-verify    are they what transformers computes, and what NumPy computes from spec/model.md? runs README's Python too (Python)
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += --jobs=$(shell nproc 2>/dev/null || echo 1)
endif
CC       ?= cc
BUILD    ?= build
CFLAGS   ?= -O3 -g
WERROR   ?=
SANITIZE ?=
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# -ffp-contract=off and no -march: the same bits on every machine. Never -ffast-math: the checker must see NaN.
LANGUAGE  = -std=c11 -D_GNU_SOURCE -ffp-contract=off
WARNINGS  = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
PACKAGES  = hdf5 yaml-0.1 libcrypto zlib
CPPFLAGS += -Iref -Itests/check -MMD -MP $(if $(PACKAGES),$(shell pkg-config --cflags $(PACKAGES)))
LDLIBS   += $(if $(PACKAGES),$(shell pkg-config --libs $(PACKAGES))) -lm
# Where this folder lies must not be seen in what is built (make reproducible). A debugger wants to know.
PREFIX_MAP ?= -ffile-prefix-map=$(CURDIR)=.
COMPILE   = $(CC) $(CPPFLAGS) $(LANGUAGE) $(WARNINGS) $(WERROR) $(CFLAGS) $(PREFIX_MAP) $(TWIN_FLAGS) $(SANITIZE)
LINK      = $(CC) $(SANITIZE) $(LDFLAGS)

# SIMD twins (spec/twins.md): only their files get -m flags and OpenMP. TWINS= builds none.
MACHINE   := $(shell $(CC) -dumpmachine)
TWINS     ?= $(if $(findstring x86_64,$(MACHINE)),avx2 avx512,$(if $(findstring aarch64,$(MACHINE)),neon))
TWIN_avx2   = -mavx2 -mfma -mf16c
TWIN_avx512 = $(TWIN_avx2) -mavx512f -mavx512dq -mavx512bw -mavx512vl
# Threads, where the compiler has its OpenMP library.
OPENMP    := $(shell echo 'int main(void) { return 0; }' | $(CC) -fopenmp -x c -o /dev/null - 2>/dev/null && echo -fopenmp)
CPPFLAGS  += $(TWINS:%=-DGEMMA4_TWIN_%)
LDLIBS    += $(if $(TWINS),$(OPENMP))

# Operators that give the scalar's bits: AVX-512 has none of its own.
EXACT     = $(filter-out avx512,$(TWINS))
OPERATORS = ref/ops_scalar.c $(TWINS:%=ref/ops_%.c) $(EXACT:%=ref/ops_exact_%.c)
LIBRARY = $(patsubst %.c,$(BUILD)/%.o,$(filter-out ref/main.c ref/ops_%.c,$(wildcard ref/*.c)) $(OPERATORS))
CHECKER = $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/check/main.c,$(wildcard tests/check/*.c)))
# The twin checker needs neither HDF5 nor YAML: operators only.
TWIN_CHECK = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/twins/*.c) ref/quantised.c ref/blocks.c ref/ops.c ref/taps.c ref/error.c $(OPERATORS))
BENCH   = $(patsubst %.c,$(BUILD)/%.o,tests/bench/main.c $(TWINS:%=tests/bench/peak_%.c))
UNIT    = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/unit/*.c))
# What the fuzzers feed; the unit suite `fuzz` runs it on files.
FUZZ_TARGETS = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fuzz/targets*.c))

# The data directory is compiled into one file: where installed programs find their cases, wherever they are moved themselves.
PREFIX  ?= /usr/local
DATADIR  = $(PREFIX)/share/gemma4

all: $(BUILD)/gemma4-ref $(BUILD)/gemma4-check

$(BUILD)/gemma4-ref: $(BUILD)/ref/main.o $(LIBRARY)
	$(LINK) -o $@ $^ $(LDLIBS)

$(BUILD)/gemma4-check: $(BUILD)/tests/check/main.o $(CHECKER) $(LIBRARY)
	$(LINK) -o $@ $^ $(LDLIBS)

$(BUILD)/unit-tests: $(UNIT) $(FUZZ_TARGETS) $(CHECKER) $(LIBRARY)
	$(LINK) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check)

$(BUILD)/gemma4-twins: $(TWIN_CHECK)
	$(LINK) -o $@ $^ -lm $(if $(TWINS),$(OPENMP))

$(BUILD)/gemma4-bench: $(BENCH) $(LIBRARY)
	$(LINK) -o $@ $^ $(LDLIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

# ops_avx2.c and peak_avx2.c get TWIN_avx2, and so on.
$(BUILD)/ref/ops_%.o $(BUILD)/tests/bench/%.o $(BUILD)/tests/twins/%.o: TWIN_FLAGS = $(TWIN_$(lastword $(subst _, ,$(notdir $*)))) $(or $(OPENMP),-Wno-unknown-pragmas)
$(BUILD)/ref/ops_scalar.o: TWIN_FLAGS =
# One says how many threads the twins use, the other deals looks out to threads.
$(BUILD)/ref/ops.o $(BUILD)/tests/check/identify_each.o $(BUILD)/tests/check/block_batch.o: TWIN_FLAGS = $(if $(TWINS),$(OPENMP))

# The version is compiled into one file, and that one again when it changes.
$(BUILD)/ref/version.o: CPPFLAGS += -DGEMMA4_VERSION='"$(VERSION)"'
$(BUILD)/ref/version.o: $(BUILD)/version
$(BUILD)/version: always
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
$(BUILD)/ref/places.o: CPPFLAGS += -DGEMMA4_DATA_DIR='"$(DATADIR)"'
$(BUILD)/ref/places.o: $(BUILD)/datadir
$(BUILD)/datadir: always
	@mkdir -p $(@D)
	@echo '$(DATADIR)' | cmp -s - $@ || echo '$(DATADIR)' >$@

# ------------------------------------------------------------ install and dist

$(BUILD)/libgemma4.a: $(LIBRARY)
	@rm -f $@
	$(AR) rcsD $@ $^

# No LDFLAGS: what the sanitizers need, whoever links the library must say.
$(BUILD)/gemma4.pc: always
	@printf 'prefix=%s\nlibdir=$${prefix}/lib\nincludedir=$${prefix}/include\n\nName: gemma4\nDescription: reference implementation of Gemma 4 26B-A4B\n' \
		'$(PREFIX)' >$@
	@printf 'Version: %s\nRequires: $(PACKAGES)\nCflags: -I$${includedir} -I$${includedir}/gemma4\nLibs: -L$${libdir} -lgemma4 -lm %s\n' \
		'$(VERSION)' '$(if $(TWINS),$(OPENMP))' >>$@

HEADERS   = $(filter-out %_internal.h %_simd.h ref/simd_% ref/ops_exact% ref/ops_groups.h,$(wildcard ref/*.h))
INSTALLED = $(DESTDIR)$(PREFIX)
install: all $(BUILD)/libgemma4.a $(BUILD)/gemma4.pc
	install -d $(INSTALLED)/bin $(INSTALLED)/lib/pkgconfig $(INSTALLED)/include/gemma4 $(INSTALLED)/share/man/man1 $(DESTDIR)$(DATADIR)/golden/cases \
		$(DESTDIR)$(DATADIR)/golden/ladder \
		$(DESTDIR)$(DATADIR)/golden/checkpoints/tiny
	install -m 755 $(BUILD)/gemma4-ref $(BUILD)/gemma4-check $(INSTALLED)/bin
	install -m 644 $(BUILD)/libgemma4.a $(INSTALLED)/lib
	install -m 644 $(BUILD)/gemma4.pc $(INSTALLED)/lib/pkgconfig
	install -m 644 $(HEADERS) golden/engines/gemma4_dump.h $(INSTALLED)/include/gemma4
	install -m 644 $(wildcard man/*.1) $(INSTALLED)/share/man/man1
	install -m 644 $(wildcard golden/cases/*) $(DESTDIR)$(DATADIR)/golden/cases
	install -m 644 $(wildcard golden/ladder/*) $(DESTDIR)$(DATADIR)/golden/ladder
	install -m 644 $(wildcard golden/checkpoints/tiny/*) $(DESTDIR)$(DATADIR)/golden/checkpoints/tiny
	$(if $(wildcard golden/maps),install -d $(DESTDIR)$(DATADIR)/golden/maps && install -m 644 $(wildcard golden/maps/*) $(DESTDIR)$(DATADIR)/golden/maps)

uninstall:
	rm -f $(INSTALLED)/bin/gemma4-ref $(INSTALLED)/bin/gemma4-check $(INSTALLED)/lib/libgemma4.a $(INSTALLED)/lib/pkgconfig/gemma4.pc \
		$(patsubst man/%,$(INSTALLED)/share/man/man1/%,$(wildcard man/*.1))
	rm -rf $(INSTALLED)/include/gemma4 $(DESTDIR)$(DATADIR)

# Static programs: libhdf5.a of Debian wants its compressors, whether they are used or not.
STATIC_LIBS ?= $(shell pkg-config --libs-only-L hdf5) -lhdf5 -lsz -laec -lz -lyaml -lcrypto -lpthread -ldl -lm
STRIP       ?= strip
$(BUILD)/static/gemma4-ref: $(BUILD)/ref/main.o $(LIBRARY)
	@mkdir -p $(@D)
	$(LINK) -static -o $@ $^ $(STATIC_LIBS) $(if $(TWINS),$(OPENMP))
	$(STRIP) $@
$(BUILD)/static/gemma4-check: $(BUILD)/tests/check/main.o $(CHECKER) $(LIBRARY)
	@mkdir -p $(@D)
	$(LINK) -static -o $@ $^ $(STATIC_LIBS) $(if $(TWINS),$(OPENMP))
	$(STRIP) $@

# golden/ is found beside bin/; checkpoints that are generated go to build/.
DIST     = gemma4-$(VERSION)-$(firstword $(subst -, ,$(MACHINE)))-linux
LICENCES = $(wildcard $(patsubst %,/usr/share/doc/%/copyright,libhdf5-dev libyaml-dev libssl-dev libaec-dev zlib1g-dev libc6-dev libgcc-12-dev))
dist: $(BUILD)/static/gemma4-ref $(BUILD)/static/gemma4-check
	rm -rf $(BUILD)/dist
	mkdir -p $(BUILD)/dist/$(DIST)/bin $(BUILD)/dist/$(DIST)/build/checkpoints $(BUILD)/dist/$(DIST)/golden $(BUILD)/dist/$(DIST)/licences
	cp $^ $(BUILD)/dist/$(DIST)/bin
	cp -R golden/cases golden/ladder golden/checkpoints golden/dumps golden/engines $(wildcard golden/maps) $(BUILD)/dist/$(DIST)/golden
	cp -R man spec README.md LICENSE $(BUILD)/dist/$(DIST)
	for file in $(LICENCES); do cp $$file $(BUILD)/dist/$(DIST)/licences/$$(basename $$(dirname $$file)); done
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(or $(shell git log -1 --format=%ct 2>/dev/null),0) -C $(BUILD)/dist -cf - $(DIST) | \
		gzip -n -9 >$(BUILD)/$(DIST).tar.gz
	@ls -l $(BUILD)/$(DIST).tar.gz

dist-check: dist
	sh tests/dist.sh $(BUILD)/$(DIST).tar.gz

dist-arm64:
	sh tests/dist_arm64.sh $(BUILD)/arm64
	sh tests/dist.sh $(BUILD)/arm64/gemma4-$(VERSION)-aarch64-linux.tar.gz $$(command -v qemu-aarch64-static)

# ---------------------------------------------------------------------- tests

demo: all
	sh tests/demo.sh $(BUILD)/gemma4-check

# Tests that have passed are not repeated until something that they read changes. A commit's version is no such thing: the objects count.
REF_OBJECTS  = $(BUILD)/ref/main.o $(filter-out %/version.o,$(LIBRARY))
UNIT_OBJECTS = $(UNIT) $(FUZZ_TARGETS) $(CHECKER) $(BUILD)/tests/check/main.o $(REF_OBJECTS)
UNIT_READS   = Makefile README.md $(wildcard spec/*.* spec/*/* golden/*/* golden/*/*/* tests/fuzz/*/*/* tests/unit/excerpts/*)
$(BUILD)/unit-tests.passed: $(UNIT_OBJECTS) $(UNIT_READS) | $(BUILD)/unit-tests $(BUILD)/gemma4-ref $(BUILD)/gemma4-check
	GEMMA4_BUILD=$(BUILD) $(BUILD)/unit-tests
	@touch $@

# Threads that wait do not spin: tests share the machine.
$(BUILD)/twins.passed: $(BUILD)/gemma4-twins | $(BUILD)/unit-tests.passed
	OMP_WAIT_POLICY=passive $(BUILD)/gemma4-twins >$(BUILD)/twins.txt || { cat $(BUILD)/twins.txt; exit 1; }
	@touch $@

$(BUILD)/twin-passes.passed: $(REF_OBJECTS) tests/twins.sh | $(BUILD)/gemma4-ref $(BUILD)/gemma4-check $(BUILD)/twins.passed
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 sh tests/twins.sh $(BUILD)
	@touch $@

# Under the sanitizers it would take minutes; the unit tests run the same code there.
CHECK_OBJECTS = $(CHECKER) $(BUILD)/tests/check/main.o $(filter-out %/version.o,$(LIBRARY))
$(BUILD)/sample.passed: $(CHECK_OBJECTS) $(wildcard golden/cases/* golden/checkpoints/*/*) | $(BUILD)/gemma4-check $(BUILD)/twin-passes.passed
	$(if $(SANITIZE),,$(BUILD)/gemma4-check self-test --sample)
	@touch $@

# The example of the header that writes dumps. In C99 the header has no warnings either.
$(BUILD)/dump-example: $(BUILD)/golden/engines/example.o $(LIBRARY)
	$(LINK) -o $@ $^ $(LDLIBS)
$(BUILD)/golden/engines/example.o: golden/engines/gemma4_dump.h

check: all $(BUILD)/dump-example $(BUILD)/unit-tests.passed $(BUILD)/twins.passed $(BUILD)/twin-passes.passed $(BUILD)/sample.passed
	$(BUILD)/gemma4-check lint
	sh tests/demo.sh $(BUILD)/gemma4-check >$(BUILD)/demo.txt
	sh tests/junit.sh $(BUILD)
	$(if $(SANITIZE),,sh tests/wrong_pages.sh $(BUILD))
	$(CC) -std=c99 -pedantic $(WARNINGS) -Werror -DGEMMA4_DUMP_IMPLEMENTATION -x c -fsyntax-only golden/engines/gemma4_dump.h
	sh tests/header.sh $(BUILD)
	CC="$(CC)" SANITIZE="$(SANITIZE)" sh tests/install_tree.sh $(BUILD) $(PREFIX)
	@echo "make check: everything passed"

# The table of worst errors in spec/.
twin-errors: $(BUILD)/gemma4-twins
	$(BUILD)/gemma4-twins --table spec/twins-errors.md
	$(MAKE) sums

# The NEON twin, cross-compiled and run in an emulator: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user.
# -O2: gcc 12 for AArch64 crashes at -O3 (gemma4_softmax).
check-neon:
	$(MAKE) BUILD=$(BUILD)/neon CC=aarch64-linux-gnu-gcc PACKAGES= CFLAGS="-O2 -g" LDFLAGS=-static $(BUILD)/neon/gemma4-twins
	OMP_WAIT_POLICY=passive qemu-aarch64 $(BUILD)/neon/gemma4-twins

# Two layers at the true dimensions, 3.3 GB, seven seconds.
FULL = build/checkpoints/26b-a4b-2
$(FULL)/model.safetensors: | $(BUILD)/gemma4-ref
	$(BUILD)/gemma4-ref synth --preset 26b-a4b --layers 2 --vocab 8192 --seed 1 --out $(FULL)

check-full: all $(FULL)/model.safetensors
	OMP_WAIT_POLICY=passive sh tests/full.sh $(BUILD) $(FULL)

bench: $(BUILD)/gemma4-bench $(FULL)/model.safetensors
	$(BUILD)/gemma4-bench --model $(FULL) --csv $(BUILD)/bench.csv --json $(BUILD)/bench.json

# 12 layers of width 128: a model that a port would be tested with. Minutes.
DEEP = build/checkpoints/deep128
$(DEEP)/model.safetensors: | $(BUILD)/gemma4-ref
	$(BUILD)/gemma4-ref synth --preset deep128 --seed 1 --out $(DEEP)

check-long: all
	sh tests/long.sh $(BUILD)

# All 30 layers, generated: 50 GB of disk, a quarter of an hour.
check-whole: all
	sh tests/bench/whole.sh $(BUILD) build/checkpoints/whole

POSITIONS = 16
bench-check: all $(DEEP)/model.safetensors $(FULL)/model.safetensors
	$(BUILD)/gemma4-check self-test --times --model $(DEEP)
	sh tests/bench/check.sh $(BUILD) $(FULL) $(POSITIONS)

# Without the twins, so that a step is a line of ref/forward.c and what it calls in ref/ops_scalar.c.
debug:
	$(MAKE) BUILD=$(BUILD)/debug CFLAGS="-O0 -g3" PREFIX_MAP= TWINS= $(BUILD)/debug/gemma4-ref
	@echo "gdb -x ref/gdb/gemma4.py $(BUILD)/debug/gemma4-ref    then: case tiny-prompt, tap attn.q_rope 5, run, tensor, compare, next-tap"

debug-test: all debug
	sh tests/debug.sh $(BUILD)

agreement: all
	$(BUILD)/gemma4-check agreement

kill-matrix: all
	$(BUILD)/gemma4-check self-test --out spec/kill-matrix.md
	$(MAKE) sums

kill-matrix-verify: all
	$(BUILD)/gemma4-check self-test --out $(BUILD)/kill-matrix.md
	@cmp -s $(BUILD)/kill-matrix.md spec/kill-matrix.md && echo "spec/kill-matrix.md is what this build writes" || \
		echo "spec/kill-matrix.md differs from $(BUILD)/kill-matrix.md: look at the difference, then make kill-matrix"

MUTATE =
mutate:
	python3 -u tests/mutate.py $(MUTATE)

SAMPLE = --sample 60
wrong-pages: all $(BUILD)/unit-tests
	python3 -u tests/wrong_pages.py $(BUILD) $(SAMPLE)

sums:
	sha256sum spec/agreement.md spec/engines.md spec/kill-matrix.md spec/twins-errors.md >spec/measured/pages.sha256

honest-reference: all
	@mkdir -p spec/measured
	{ $(BUILD)/gemma4-check self-test --honest --seeds 20; echo $$? >$(BUILD)/$@.status; } | tee spec/measured/$@.txt
	@exit $$(cat $(BUILD)/$@.status)

precision: all
	$(MAKE) BUILD=$(BUILD)/double CFLAGS="$(CFLAGS) -DGEMMA4_REAL=double" TWINS= all
	sh tests/precision.sh $(BUILD)

check-sanitizers:
	$(MAKE) BUILD=$(BUILD)/sanitizers CFLAGS="-O1 -g" SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=all" check

check-warnings:
	$(MAKE) BUILD=$(BUILD)/gcc CC=gcc WERROR=-Werror all $(BUILD)/gcc/unit-tests $(BUILD)/gcc/gemma4-twins $(BUILD)/gcc/gemma4-bench
	$(MAKE) BUILD=$(BUILD)/clang CC=clang WERROR=-Werror all $(BUILD)/clang/unit-tests $(BUILD)/clang/gemma4-twins $(BUILD)/clang/gemma4-bench

check-format:
	sh tests/format.sh

# An allocator that fails, preloaded; the program that runs the commands with it.
$(BUILD)/alloc-fail.so: tests/alloc/fail.c tests/alloc/state.h
	@mkdir -p $(@D)
	$(CC) $(LANGUAGE) $(WARNINGS) $(WERROR) -O1 -g -shared -fPIC -o $@ $< -ldl
$(BUILD)/alloc-check: $(BUILD)/tests/alloc/main.o
	$(LINK) -o $@ $^

# ALLOC=dump: the commands with that in their name. MOST=40: a sample of so many failures each, a few minutes in all; MOST=every: each allocation, days in all.
ALLOC =
MOST  =
check-alloc: all $(BUILD)/alloc-fail.so $(BUILD)/alloc-check
	$(BUILD)/alloc-check $(BUILD) "$(ALLOC)" $(MOST)

# Versions are compiled in: all of one commit.
sameness: all
	$(MAKE) BUILD=$(BUILD)/same/gcc-O0 CC=gcc CFLAGS=-O0 all
	$(MAKE) BUILD=$(BUILD)/same/scalar TWINS= all
	$(MAKE) BUILD=$(BUILD)/same/clang-O3 CC=clang CFLAGS=-O3 all
	$(MAKE) BUILD=$(BUILD)/same/clang-O0 CC=clang CFLAGS=-O0 all
	sh tests/sameness.sh $(BUILD) $(BUILD)/same/gcc-O0 $(BUILD)/same/scalar $(BUILD)/same/clang-O3 $(BUILD)/same/clang-O0

# A quarter of an hour on two cores; EVERY=1 is all of them.
EVERY = 5
both-ways: all build/oracle/installed
	sh tests/both_ways.sh $(BUILD) $(EVERY) $(ORACLE)
both-ways-cases: all
	sh tests/both_ways.sh $(BUILD)

# libgomp is not instrumented, and would be one false alarm; clang's libomp says through its tool Archer who waits for whom.
check-threads:
	$(MAKE) BUILD=$(BUILD)/threads CC=clang CFLAGS="-O1 -g" SANITIZE=-fsanitize=thread all $(BUILD)/threads/gemma4-twins
	CC=clang sh tests/threads.sh $(BUILD)/threads

# Without threads: libomp is not instrumented. libyaml and zlib are not either: tests/fuzz/foreign.c says what they have written.
MEMORY_WRAPS = yaml_parser_initialize yaml_parser_parse inflate
check-memory:
	$(MAKE) BUILD=$(BUILD)/memory CC=clang CFLAGS="-O1 -g" OPENMP= SANITIZE="-fsanitize=fuzzer-no-link,memory -fsanitize-memory-track-origins" \
		LDFLAGS="$(MEMORY_WRAPS:%=-Wl,--wrap=%)" $(BUILD)/memory/gemma4-twins $(BUILD)/memory/fuzzer
	sh tests/memory.sh $(BUILD)/memory $(BUILD)/fuzz/found

# Counters in mapped files: processes that end in a sandbox, or by _exit, are counted too. Without threads: where no file may grow, libomp ends them.
coverage:
	$(MAKE) BUILD=$(BUILD)/coverage CC=clang CFLAGS="-O1 -g" OPENMP= PREFIX_MAP= \
		SANITIZE="-fprofile-instr-generate -fcoverage-mapping -mllvm -runtime-counter-relocation" all $(BUILD)/coverage/unit-tests
	sh tests/coverage.sh $(BUILD)/coverage spec/measured/coverage.txt

reproducible:
	sh tests/reproducible.sh $(BUILD)/reproducible $(VERSION) "$(CFLAGS)"

# Every reader of inputs under libFuzzer: clang, libclang-rt-14-dev. The unit suite `fuzz` runs the same targets on files, without either.
FUZZ = $(FUZZ_TARGETS) $(CHECKER)
$(BUILD)/fuzzer: $(BUILD)/tests/fuzz/main.o $(FUZZ) $(if $(findstring memory,$(SANITIZE)),$(BUILD)/tests/fuzz/foreign.o) $(LIBRARY)
	$(LINK) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# As many at a time as there are processors: on two, one minute each takes twelve.
MINUTES = 1
fuzz:
	$(MAKE) BUILD=$(BUILD)/fuzz CC=clang CFLAGS="-O1 -g" SANITIZE="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" TWINS= \
		$(BUILD)/fuzz/fuzzer
	sh tests/fuzz/run.sh $(BUILD)/fuzz/fuzzer $$(($(MINUTES) * 60)) $(BUILD)/fuzz/found

# -------------------------------------------------------------------- engines

# An engine's environment, complete when the file "installed" is there; PYTHON= where the engine wants another version. no-deps.txt names packages
# that go without what they ask for; prepare.py does what pip cannot. llama.cpp's environment has llama.cpp's own converter to GGUF.
# --no-compile: Python compiles what is imported, which is a small part.
PYTHON ?= python3
build/engines/%/installed: golden/engines/%/requirements.txt
	$(PYTHON) -m venv build/engines/$*
	build/engines/$*/bin/pip install --quiet --no-compile $(PIP_ARGS) -r $<
	$(if $(wildcard golden/engines/$*/no-deps.txt),build/engines/$*/bin/pip install --quiet --no-compile --no-deps $(PIP_ARGS) -r golden/engines/$*/no-deps.txt)
	$(if $(wildcard golden/engines/$*/prepare.py),build/engines/$*/bin/python golden/engines/$*/prepare.py)
	@touch $@

checkpoints: $(BUILD)/gemma4-ref build/engines/llama.cpp/installed
	sh golden/engines/checkpoints.sh build build/engines/llama.cpp/bin/python

# The folders alone need no Python. GGUF files are made for the engine that reads them. CASES=tiny-prompt,tiny-chunks dumps no others.
ENGINE  =
CASES   =
RECIPES = $(patsubst golden/engines/%/recipe.yaml,%,$(wildcard golden/engines/*/recipe.yaml))
engine: all $(if $(filter $(ENGINE),$(RECIPES)),build/engines/$(ENGINE)/installed)
	@$(if $(filter $(ENGINE),$(RECIPES)),,echo "make engine ENGINE=X: expected one of $(RECIPES); found '$(ENGINE)'" >&2; exit 2)
	sh golden/engines/checkpoints.sh build $(if $(filter gguf,$(shell sed -n 's/^model: //p' golden/engines/$(ENGINE)/recipe.yaml 2>/dev/null)),build/engines/$(ENGINE)/bin/python)
	build/engines/$(ENGINE)/bin/python golden/engines/run.py $(ENGINE) --check $(BUILD)/gemma4-check $(if $(CASES),--case $(CASES))

engines:
	@set -- build/engines/*/installed; [ -f "$$1" ] || { echo "make engines: build/engines is empty: make engine ENGINE=X first" >&2; exit 2; }; \
		python=$${1%/installed}/bin/python; $$python golden/engines/table.py && $$python golden/engines/agreement.py
	$(MAKE) sums

check-engines:
	python3 tests/engines_rows.py

# --------------------------------------------------------------------- oracle

# Complete when the file "installed" is there. bin/python is a link to the system's: its time says nothing, and to touch it would touch that one.
ORACLE = build/oracle/bin/python
build/oracle/installed: golden/oracle/requirements.txt
	python3 -m venv build/oracle
	build/oracle/bin/pip install --quiet $(PIP_ARGS) -r $<
	@touch $@

# The first run of a case generates its checkpoint. Each prints what it finds, leaves it in spec/measured/, and fails where the rates are not reached.
honest planted uncatalogued pairs identify: all build/oracle/installed
	$(BUILD)/gemma4-check agreement >$(BUILD)/agreement.txt
	@mkdir -p spec/measured
	{ $(ORACLE) -u golden/oracle/$@.py --check $(BUILD)/gemma4-check; echo $$? >$(BUILD)/$@.status; } | tee spec/measured/$@.txt
	@exit $$(cat $(BUILD)/$@.status)

# Half an hour of a core; one that is interrupted is continued by the next. LADDER="--sample 10 --combinations 8 --seed 2" is a sample, published nowhere.
LADDER =
LADDER_SAYS = $(if $(filter --sample --combinations --seed --fault --form,$(LADDER)),$(BUILD)/ladder-sample.txt,spec/measured/ladder.txt)
ladder-check: all build/oracle/installed
	@mkdir -p spec/measured
	{ $(ORACLE) -u golden/oracle/ladder_check.py --check $(BUILD)/gemma4-check $(LADDER); echo $$? >$(BUILD)/$@.status; } | tee $(LADDER_SAYS)
	@exit $$(cat $(BUILD)/$@.status)

golden: all build/oracle/installed
	$(ORACLE) golden/oracle/make_golden.py
	$(BUILD)/gemma4-check ladder --out build/ladder && $(ORACLE) golden/oracle/ladder_golden.py --ladder build/ladder
	$(ORACLE) golden/oracle/make_dumps.py

golden-verify: all build/oracle/installed
	$(ORACLE) golden/oracle/make_golden.py --verify
	$(BUILD)/gemma4-check agreement >$(BUILD)/agreement.txt
	$(ORACLE) spec/forward.py
	$(ORACLE) golden/oracle/readme_dump.py --check $(BUILD)/gemma4-check
	$(BUILD)/gemma4-check ladder --out build/ladder && $(ORACLE) golden/oracle/ladder_golden.py --ladder build/ladder --verify

clean:
	rm -rf $(BUILD)

.PHONY: all always debug debug-test demo checkpoints engine engines check check-engines install uninstall dist dist-check dist-arm64 agreement precision check-sanitizers check-warnings check-format honest planted uncatalogued pairs identify ladder-check golden golden-verify kill-matrix kill-matrix-verify mutate honest-reference clean twin-errors check-neon bench bench-check check-full check-long check-whole fuzz check-alloc sameness both-ways both-ways-cases wrong-pages sums check-threads check-memory coverage reproducible
# Not in the Python environments, which have folders of such names.
-include $(shell find $(BUILD) \( -path $(BUILD)/engines -o -path $(BUILD)/oracle \) -prune -o -name '*.d' -type f -print 2>/dev/null)
