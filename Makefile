# gemma4: reference implementation and conformance suite. Products go to build/ only.
#
#   make            build/gemma4-ref, build/gemma4-check
#   make check      all tests
CC      ?= cc
BUILD   ?= build
CSTD     = -std=c11 -D_GNU_SOURCE -ffp-contract=off
WARN     = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CFLAGS  ?= -O2 -g
WERROR  ?=
SANITIZE ?=
PKGS     = hdf5 yaml-0.1 libcrypto
CPPFLAGS += -Iref -Itests/check -MMD -MP $(shell pkg-config --cflags $(PKGS))
LDLIBS   = $(shell pkg-config --libs $(PKGS)) -lm
ALL_CFLAGS = $(CSTD) $(WARN) $(WERROR) $(CFLAGS) $(SANITIZE)

LIB_SRC   = $(filter-out ref/main.c,$(wildcard ref/*.c))
LIB_OBJ   = $(LIB_SRC:%.c=$(BUILD)/%.o)
CHECK_SRC = $(filter-out tests/check/main.c,$(wildcard tests/check/*.c))
CHECK_OBJ = $(CHECK_SRC:%.c=$(BUILD)/%.o)
UNIT_OBJ  = $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/unit/*.c))

all: $(BUILD)/gemma4-ref $(BUILD)/gemma4-check

$(BUILD)/gemma4-ref: $(BUILD)/ref/main.o $(LIB_OBJ)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/gemma4-check: $(BUILD)/tests/check/main.o $(CHECK_OBJ) $(LIB_OBJ)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/unit-tests: $(UNIT_OBJ) $(CHECK_OBJ) $(LIB_OBJ)
	$(CC) $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs check)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

clean:
	rm -rf $(BUILD)

.PHONY: all clean
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
