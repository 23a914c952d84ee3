/* What core/words.py does for each text, where there was a compiler: see there for the idea.
 *
 * numpy goes over a text a dozen times and writes down what it found each time; this goes over it
 * once, and what it writes stays in the nearest cache. words.py finds the same without it. It keeps
 * to the limited API, so that one file serves every Python from 3.12 on, holds no state, and reads
 * no byte that its arguments do not cover.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030C0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define WORD 8    /* bytes */
#define BLOCK 8192 /* words; their marks fill a quarter of a first-level cache */
#define EIGHT 8    /* words of the longest sequence */
#define BEYOND 3   /* words after the first whose marks are known: four of a sequence */

#define FOLD 0x2020202020202020u   /* as in words.py */
#define FACTOR 0x9E3779B97F4A7C15u

/* Bits of a mark: a sequence of one word; of two, its first and second; of four or eight, its first
 * to fourth. Those of a first word: */
#define ONE 0x01
#define TWO 0x02
#define FOUR 0x08

typedef struct {
    const unsigned char *text; /* the first word */
    Py_ssize_t words;          /* that it has */
    const uint8_t *table;
    unsigned shift;
    const uint64_t *first, *sequences; /* in order */
    Py_ssize_t firsts, numbers;
    unsigned kinds; /* lengths of sequences, added up */
} Asked;

static uint64_t
word_at(const unsigned char *text)
{
    uint64_t word;
    memcpy(&word, text, WORD);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* For each of *count* words whether a sequence may begin with it; *marks* go on for BEYOND. */
static void
begin(const uint8_t *restrict marks, uint8_t *restrict whole, Py_ssize_t count, unsigned kinds)
{
    const uint8_t one = kinds & ONE, two = kinds & TWO, four = kinds & FOUR;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint8_t pair = marks[i] & (uint8_t)(marks[i + 1] >> 1);
        uint8_t later = marks[i + 2] & (uint8_t)(marks[i + 3] >> 1);
        whole[i] = (marks[i] & one) | (pair & two) | (pair & (uint8_t)(later >> 2) & four);
    }
}

/* Add the places of what is not 0 among *count* bytes, *from* more, to *out*; how many there are. */
static Py_ssize_t
list(const uint8_t *whole, Py_ssize_t count, int64_t from, int64_t *out)
{
    Py_ssize_t found = 0, i = 0;
    for (; i + WORD <= count; i += WORD) {
        uint64_t eight;
        memcpy(&eight, whole + i, WORD);
        if (eight == 0)
            continue;
        for (int k = 0; k < WORD; k++)
            if (whole[i + k])
                out[found++] = from + i + k;
    }
    for (; i < count; i++)
        if (whole[i])
            out[found++] = from + i;
    return found;
}

static int
holds(const uint64_t *numbers, Py_ssize_t count, uint64_t wanted)
{
    Py_ssize_t from = 0;
    while (count > 0) {
        Py_ssize_t half = count / 2;
        if (numbers[from + half] < wanted) {
            from += half + 1;
            count -= half + 1;
        } else if (numbers[from + half] > wanted) {
            count = half;
        } else {
            return 1;
        }
    }
    return 0;
}

/* Whether a sequence begins with word *index*. */
static int
known(const Asked *asked, Py_ssize_t index)
{
    uint64_t number = 0;
    int found = 0;
    for (unsigned count = 1; count <= EIGHT && index < asked->words; count++, index++) {
        number = ((number ^ (word_at(asked->text + index * WORD) | FOLD)) * FACTOR) + 1;
        number ^= number >> 32;
        if ((count & (count - 1)) == 0 && (asked->kinds & count))
            found |= holds(asked->sequences, asked->numbers, number);
    }
    return found;
}

/* Where the table says that a sequence may begin. */
static Py_ssize_t
marked(const Asked *asked, Py_ssize_t size, unsigned kinds, int64_t *out)
{
    uint8_t marks[BLOCK + BEYOND], whole[BLOCK];
    Py_ssize_t found = 0;
    for (Py_ssize_t start = 0; start < size; start += BLOCK) {
        Py_ssize_t count = size - start < BLOCK ? size - start : BLOCK;
        Py_ssize_t left = asked->words - start;
        Py_ssize_t seen = left < count + BEYOND ? left : count + BEYOND;
        const unsigned char *at = asked->text + start * WORD;
        for (Py_ssize_t i = 0; i < seen; i++)
            marks[i] = asked->table[((word_at(at + i * WORD) | FOLD) * FACTOR) >> asked->shift];
        memset(marks + seen, 0, (size_t)(count + BEYOND - seen));
        begin(marks, whole, count, kinds);
        found += list(whole, count, start, out + found);
    }
    return found;
}

static Py_ssize_t
look(const Asked *asked, Py_ssize_t size, unsigned kinds, Py_ssize_t most, int64_t *out)
{
    Py_ssize_t told = marked(asked, size, kinds, out), count = 0, found = 0;
    int64_t beyond = 0;
    /* Words fall together in the table too often to look at each, in a text that repeats itself. */
    for (Py_ssize_t i = 0; i < told; i++)
        if (holds(asked->first, asked->firsts, word_at(asked->text + out[i] * WORD) | FOLD))
            out[count++] = out[i];
    if (count > most)
        return count;
    /* One is looked at in any case: that there is one must not show in the time that it takes. */
    if (count == 0 && size > 0)
        out[count++] = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (out[i] >= beyond && known(asked, out[i])) {
            beyond = out[i] + EIGHT; /* of several so near to each other one will do */
            out[found++] = out[i];
        }
    return found;
}

PyDoc_STRVAR(places_doc,
"places(text, start, words, size, table, shift, first, sequences, all_kinds, kinds, most, out) -> int\n\n"
"Write into *out*, of 64-bit integers, with which of the first *size* of *words* words of *text*,\n"
"the first at byte *start*, a sequence begins; how many there are. Over *most*: in so many places\n"
"that they were not looked at.");

static PyObject *
places(PyObject *module, PyObject *args)
{
    Py_buffer text, table, first, sequences, out;
    Py_ssize_t start, size, most, found = -1;
    unsigned kinds;
    Asked asked;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnny*Iy*y*IInw*:places", &text, &start, &asked.words, &size,
                          &table, &asked.shift, &first, &sequences, &asked.kinds, &kinds, &most,
                          &out))
        return NULL;
    if (start < 0 || asked.words < 0 || size < 0 || size > asked.words || start > text.len
        || asked.words > (text.len - start) / WORD || asked.shift < 32 || asked.shift > 63
        || table.len != (Py_ssize_t)1 << (64 - asked.shift) || size > out.len / WORD
        || ((uintptr_t)out.buf | (uintptr_t)first.buf | (uintptr_t)sequences.buf) % WORD != 0) {
        PyErr_SetString(PyExc_ValueError, "the arguments do not fit each other");
    } else {
        asked.text = (const unsigned char *)text.buf + start;
        asked.table = table.buf;
        asked.first = first.buf;
        asked.firsts = first.len / WORD;
        asked.sequences = sequences.buf;
        asked.numbers = sequences.len / WORD;
        kinds = (kinds & 1 ? ONE : 0) | (kinds & 2 ? TWO : 0) | (kinds & 12 ? FOUR : 0);
        found = look(&asked, size, kinds, most, out.buf);
    }
    PyBuffer_Release(&text);
    PyBuffer_Release(&table);
    PyBuffer_Release(&first);
    PyBuffer_Release(&sequences);
    PyBuffer_Release(&out);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"places", places, METH_VARARGS, places_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_words", "See _words.c.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__words(void)
{
    return PyModuleDef_Init(&definition);
}
