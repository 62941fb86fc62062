;; Products of a matrix and a vector, sixteen rows at a time. kernel.mjs makes bytes of this file.
;;
;; The numbers of a matrix stand in the order in which they are read: sixteen rows, column by column.
;; So memory is read as one stream, nothing is summed across the lanes of a vector, and what limits
;; large models is how fast memory comes. Rows are padded to sixteen, columns to two.
(module
  (import "chargen" "memory" (memory 1))

  ;; out = bias + matrix x, all float32. $bytes: of x, two columns at a time. Odd columns have sums of
  ;; their own, so that one addition need not wait for the last.
  (func (export "product") (param $matrix i32) (param $x i32) (param $bias i32) (param $out i32)
    (param $blocks i32) (param $bytes i32)
    (local $at i32) (local $end i32) (local $v v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $e v128) (local $f v128) (local $g v128) (local $h v128)
    (local.set $end (i32.add (local.get $x) (local.get $bytes)))
    (loop $block
      (local.set $a (v128.load (local.get $bias)))
      (local.set $b (v128.load offset=16 (local.get $bias)))
      (local.set $c (v128.load offset=32 (local.get $bias)))
      (local.set $d (v128.load offset=48 (local.get $bias)))
      (local.set $e (v128.const f32x4 0 0 0 0))
      (local.set $f (v128.const f32x4 0 0 0 0))
      (local.set $g (v128.const f32x4 0 0 0 0))
      (local.set $h (v128.const f32x4 0 0 0 0))
      (local.set $at (local.get $x))
      (loop $columns
        (local.set $v (v128.load32_splat (local.get $at)))
        (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $v) (v128.load (local.get $matrix)))))
        (local.set $b (f32x4.add (local.get $b) (f32x4.mul (local.get $v) (v128.load offset=16 (local.get $matrix)))))
        (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $v) (v128.load offset=32 (local.get $matrix)))))
        (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $v) (v128.load offset=48 (local.get $matrix)))))
        (local.set $v (v128.load32_splat offset=4 (local.get $at)))
        (local.set $e (f32x4.add (local.get $e) (f32x4.mul (local.get $v) (v128.load offset=64 (local.get $matrix)))))
        (local.set $f (f32x4.add (local.get $f) (f32x4.mul (local.get $v) (v128.load offset=80 (local.get $matrix)))))
        (local.set $g (f32x4.add (local.get $g) (f32x4.mul (local.get $v) (v128.load offset=96 (local.get $matrix)))))
        (local.set $h (f32x4.add (local.get $h) (f32x4.mul (local.get $v) (v128.load offset=112 (local.get $matrix)))))
        (local.set $matrix (i32.add (local.get $matrix) (i32.const 128)))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $columns (i32.lt_u (local.get $at) (local.get $end))))
      (v128.store (local.get $out) (f32x4.add (local.get $a) (local.get $e)))
      (v128.store offset=16 (local.get $out) (f32x4.add (local.get $b) (local.get $f)))
      (v128.store offset=32 (local.get $out) (f32x4.add (local.get $c) (local.get $g)))
      (v128.store offset=48 (local.get $out) (f32x4.add (local.get $d) (local.get $h)))
      (local.set $bias (i32.add (local.get $bias) (i32.const 64)))
      (local.set $out (i32.add (local.get $out) (i32.const 64)))
      (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
      (br_if $block (local.get $blocks))))

  ;; out = bias + scale (matrix x), where matrix is int8, x int16 and the sums int32, so exact; each row
  ;; has two columns side by side. $bytes: of x.
  (func (export "integer_product") (param $matrix i32) (param $x i32) (param $scale i32)
    (param $bias i32) (param $out i32) (param $blocks i32) (param $bytes i32)
    (local $at i32) (local $end i32) (local $v v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $end (i32.add (local.get $x) (local.get $bytes)))
    (loop $block
      (local.set $a (v128.const i32x4 0 0 0 0))
      (local.set $b (v128.const i32x4 0 0 0 0))
      (local.set $c (v128.const i32x4 0 0 0 0))
      (local.set $d (v128.const i32x4 0 0 0 0))
      (local.set $at (local.get $x))
      (loop $columns
        (local.set $v (v128.load32_splat (local.get $at)))
        (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s (local.get $matrix)))))
        (local.set $b (i32x4.add (local.get $b) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=8 (local.get $matrix)))))
        (local.set $c (i32x4.add (local.get $c) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=16 (local.get $matrix)))))
        (local.set $d (i32x4.add (local.get $d) (i32x4.dot_i16x8_s (local.get $v) (v128.load8x8_s offset=24 (local.get $matrix)))))
        (local.set $matrix (i32.add (local.get $matrix) (i32.const 32)))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br_if $columns (i32.lt_u (local.get $at) (local.get $end))))
      (v128.store (local.get $out) (f32x4.add (v128.load (local.get $bias))
        (f32x4.mul (v128.load (local.get $scale)) (f32x4.convert_i32x4_s (local.get $a)))))
      (v128.store offset=16 (local.get $out) (f32x4.add (v128.load offset=16 (local.get $bias))
        (f32x4.mul (v128.load offset=16 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $b)))))
      (v128.store offset=32 (local.get $out) (f32x4.add (v128.load offset=32 (local.get $bias))
        (f32x4.mul (v128.load offset=32 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $c)))))
      (v128.store offset=48 (local.get $out) (f32x4.add (v128.load offset=48 (local.get $bias))
        (f32x4.mul (v128.load offset=48 (local.get $scale)) (f32x4.convert_i32x4_s (local.get $d)))))
      (local.set $scale (i32.add (local.get $scale) (i32.const 64)))
      (local.set $bias (i32.add (local.get $bias) (i32.const 64)))
      (local.set $out (i32.add (local.get $out) (i32.const 64)))
      (local.set $blocks (i32.sub (local.get $blocks) (i32.const 1)))
      (br_if $block (local.get $blocks)))))
